"""The diagrams of the documentation as SVG; ``docs/generate.py`` writes them to ``docs/diagrams``.

A diagram follows the reader's dark or light mode. In the site it is part of the page, and its colours are those of the
page's theme (``docs/site/site.css``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
STYLE: Final = """<style>
.diagram{--ink:#1b2430;--soft:#55606e;--line:#6b7685;--fill:#eef2f8;--mark:#1f63c4;--hot:#b3261e;--warm:#f6d9d5}
@media (prefers-color-scheme:dark){.diagram{--ink:#e8edf4;--soft:#aeb8c5;--line:#8d99a8;--fill:#263040;--mark:#78b1ff;\
--hot:#ff8a80;--warm:#51302f}}
.diagram text{font:16px system-ui,sans-serif;fill:var(--ink)}
.diagram .soft{font-size:13.5px;fill:var(--soft)}
.diagram .box{fill:var(--fill);stroke:var(--line)}
.diagram .ends{fill:none;stroke:var(--line);stroke-dasharray:4 3}
.diagram .edge{fill:none;stroke:var(--line);stroke-width:1.4}
.diagram .tip{fill:var(--line)}
.diagram .mark{stroke:var(--mark);stroke-width:3;fill:none}
.diagram .area{fill:var(--mark);opacity:.18}
.diagram .hot{fill:var(--warm);stroke:var(--hot)}
</style>"""
"""The dark colours are dropped where the diagram is part of a page of the site, whose style sheet has its own."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box around its centre: a name, and a second line in small type. Dashed if it is not part of volspike."""

    x: int
    y: int
    name: str
    more: str = ""
    width: int = 132
    height: int = 52
    is_outside: bool = False

    def drawn(self) -> str:
        """The SVG of the box."""
        kind = "ends" if self.is_outside else "box"
        left, top = self.x - self.width // 2, self.y - self.height // 2
        shape = f'<rect class="{kind}" x="{left}" y="{top}" width="{self.width}" height="{self.height}" rx="7"/>'
        if not self.more:
            return shape + text(self.x, self.y + 5, self.name)
        return shape + text(self.x, self.y - 3, self.name) + text(self.x, self.y + 15, self.more, "soft")


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "middle") -> str:
    """A line of text."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(content)}</text>'


def edge(*points: tuple[int, int], label: str = "", at: tuple[int, int] | None = None) -> str:
    """An arrow through ``points`` with a label, by default above the middle of its first line."""
    (x, y), (x2, y2) = points[-2:]
    dx, dy = (x2 > x) - (x2 < x), (y2 > y) - (y2 < y)
    base = (x2 - 8 * dx, y2 - 8 * dy)
    path = "M" + " L".join(f"{px} {py}" for px, py in (*points[:-1], base))
    tip = f"{x2},{y2} {base[0] - 4 * dy},{base[1] - 4 * dx} {base[0] + 4 * dy},{base[1] + 4 * dx}"
    middle = ((points[0][0] + points[1][0]) // 2, (points[0][1] + points[1][1]) // 2 - 6)
    name = text(*(at or middle), label, "soft") if label else ""
    return f'<path class="edge" d="{path}"/><polygon class="tip" points="{tip}"/>{name}'


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A complete diagram; ``title`` is what a screen reader reads."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" viewBox="0 0 {width} {height}" width="{width}"'
    return "\n".join([f'{head} role="img" aria-label="{escape(title)}">', STYLE, *parts, "</svg>\n"])


def process() -> str:
    """The data flow of ``volspike up``."""
    boxes = (
        Box(80, 70, "exchange", "websocket", is_outside=True),
        Box(260, 70, "feeds", "frames → ticks"),
        Box(440, 70, "features", "ticks → rows"),
        Box(620, 70, "models", "rows → probability"),
        Box(800, 70, "monitoring", "episodes, outcomes"),
        Box(260, 190, "tape", "ticks, gap ledger"),
        Box(440, 190, "training", "in its own process"),
        Box(620, 190, "lifecycle", "choice of model"),
        Box(800, 190, "outcomes.sqlite", "predictions"),
        Box(1000, 40, "alert receivers", is_outside=True),
        Box(1000, 130, "dashboard, API", "/stream, /predict"),
    )
    edges = (
        edge((146, 70), (194, 70), label="frames"),
        edge((326, 70), (374, 70), label="ticks"),
        edge((506, 70), (554, 70), label="rows"),
        edge((686, 70), (734, 70)),
        edge((866, 60), (900, 60), (900, 40), (934, 40)),
        edge((866, 80), (900, 80), (900, 130), (934, 130)),
        edge((260, 96), (260, 164), label="ticks and gaps", at=(308, 134)),
        edge((326, 190), (374, 190), label="rows"),
        edge((506, 190), (554, 190)),
        edge((620, 164), (620, 96), label="production", at=(658, 134)),
        edge((800, 96), (800, 164)),
        edge((734, 190), (686, 190), label="drift"),
    )
    return svg(
        1076, 230, "Data flow of one process, from the exchange to the dashboard", (*edges, *map(Box.drawn, boxes))
    )


def kafka() -> str:
    """The data flow of the Kafka workers."""
    boxes = (
        Box(76, 70, "exchange", is_outside=True),
        Box(236, 70, "volspike ingest", "records, publishes", 144),
        Box(420, 70, "ticks.raw", "topic", 110, is_outside=True),
        Box(600, 70, "featurize", "worker per partition", 150),
        Box(790, 70, "ticks.features", "topic", 120, is_outside=True),
        Box(980, 70, "predict-stream", "worker", 136),
        Box(980, 190, "ticks.predictions", "topic", 136, is_outside=True),
        Box(790, 190, "alert receivers", is_outside=True),
        Box(600, 190, "ticks.state", "state with its offset", 150, is_outside=True),
        Box(420, 190, "ticks.dead", "unreadable", 110, is_outside=True),
        Box(236, 190, "tape", "ticks, gap ledger", 144),
    )
    edges = (
        edge((142, 70), (164, 70)),
        edge((308, 70), (365, 70), label="ticks"),
        edge((475, 70), (525, 70)),
        edge((675, 70), (730, 70), label="rows"),
        edge((850, 70), (912, 70)),
        edge((980, 96), (980, 164)),
        edge((912, 86), (880, 86), (880, 130), (790, 130), (790, 164), label="alerts", at=(835, 124)),
        edge((600, 96), (600, 164)),
        edge((540, 96), (540, 130), (420, 130), (420, 164)),
        edge((236, 96), (236, 164)),
    )
    title = "Data flow of the Kafka workers: ingest, featurize and predict-stream between topics"
    return svg(1060, 230, title, (*edges, *map(Box.drawn, boxes)))


def model() -> str:
    """The life of a model."""
    boxes = (
        Box(90, 60, "recording", "tapes, gaps"),
        Box(270, 60, "labelled rows", "replay --add-labels"),
        Box(450, 60, "folds", "walk-forward"),
        Box(630, 60, "artifact", "ONNX, metadata"),
        Box(830, 60, "challenger", "scored in shadow"),
        Box(1020, 60, "champion", "served"),
        Box(1020, 180, "outcomes", "a minute later"),
        Box(830, 180, "drift check", "data, performance"),
        Box(630, 180, "retraining", "if the table says so"),
    )
    edges = (
        edge((156, 60), (204, 60)),
        edge((336, 60), (384, 60)),
        edge((516, 60), (564, 60)),
        edge((696, 60), (764, 60)),
        edge((896, 60), (954, 60), label="better"),
        edge((1020, 86), (1020, 154)),
        edge((954, 180), (896, 180)),
        edge((764, 180), (696, 180)),
        edge((564, 180), (450, 180), (450, 86)),
        edge((1060, 34), (1060, 14), (630, 14), (630, 34), label="rollback", at=(845, 28)),
    )
    return svg(1100, 220, "Life of a model, from a recording to retraining", (*edges, *map(Box.drawn, boxes)))


def time() -> str:
    """Features, horizon, spike and alert episode on one line of time."""
    axis = 180
    parts = [
        '<rect class="area" x="60" y="40" width="340" height="34" rx="4"/>',
        text(230, 62, "windows of the features (30 s to 1 h)"),
        '<rect class="box" x="400" y="40" width="200" height="34" rx="4"/>',
        text(500, 62, "horizon: 60 s"),
        f'<path class="edge" stroke-dasharray="3 3" d="M400 20 V{axis}"/>',
        text(400, 14, "row: time t", "soft"),
        '<rect class="hot" x="520" y="100" width="230" height="30" rx="4"/>',
        text(635, 120, "spike event"),
        '<path class="mark" d="M340 150 H690"/>',
        text(446, 144, "alert episode"),
        text(332, 155, "opens", "soft", "end"),
        text(698, 155, "closes", "soft", "start"),
        f'<path class="edge" stroke-dasharray="3 3" d="M520 130 V{axis}"/>',
        f'<path class="edge" stroke-dasharray="3 3" d="M340 150 V{axis}"/>',
        edge((40, axis), (888, axis)),
        text(520, axis + 18, "onset", "soft"),
        text(872, axis + 18, "time", "soft"),
        edge((345, axis + 30), (515, axis + 30)),
        text(430, axis + 48, "lead time", "soft"),
        text(760, 62, "the label of t is known at t + 60 s", "soft"),
    ]
    title = (
        "Time line: windows before a row, its horizon of 60 s, a spike event, and an alert episode with its lead time"
    )
    return svg(920, 240, title, parts)


def packages() -> str:
    """The layers of import-linter: each imports only from those below it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [[name.strip() for name in layer.split("|")] for layer in contracts[0]["layers"]]
    boxes = [
        Box(430 + round((column - (len(layer) - 1) / 2) * 124), 24 + 42 * row, name, width=114, height=30)
        for row, layer in enumerate(layers)
        for column, name in enumerate(layer)
    ]
    edges = [edge((430, 39 + 42 * row), (430, 51 + 42 * row)) for row in range(len(layers) - 1)]
    title = f"Packages in the order of their imports: {', then '.join(' and '.join(layer) for layer in layers)}"
    return svg(860, 42 * len(layers) + 8, title, [*edges, *map(Box.drawn, boxes)])


DIAGRAMS: Final[dict[str, Callable[[], str]]] = {
    "process": process,
    "kafka": kafka,
    "packages": packages,
    "model": model,
    "time": time,
}
