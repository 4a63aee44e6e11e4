"""Self-contained HTML pages: style, tables, and Bokeh charts with their script inside, so that nothing is loaded."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation import Scored
from volspike.market import SECOND_NS, format_time
from volspike.reporting.charts import OUTCOME_CLASSES, describe_alert, describe_span, timeline_chart
from volspike.reporting.format import Table
from volspike.reporting.timeline import COARSE_BAR_S, DATA_LOSS, NO_DATA, NOT_SCORED, TimelineDay

HORIZON_KEYS: Final = (
    ("spike", "spike event: rows whose next minute is volatile (hatched)"),
    ("good", "alert in time (solid edge)"),
    ("late", "late or repeated alert (dashed edge)"),
    ("bad", "false alert (dotted edge)"),
    ("void", "no data, or not evaluated"),
    ("loss", "evaluated with data loss or a silence over 10 s in the windows"),
)

MISSING_STYLES: Final = {NO_DATA: "silent", NOT_SCORED: "not scored", DATA_LOSS: "incomplete"}


class WebPage:
    """A page under construction: its body, and the charts that its script draws."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._body: list[str] = [f"<h1>{escape(title)}</h1>"]
        self._charts: list[dict[str, Any]] = []
        self._days: list[dict[str, Any]] = []

    def add(self, *parts: str) -> None:
        """Add HTML to the body; empty parts are left out."""
        self._body += [part for part in parts if part]

    def chart(self, name: str, chart: Any, caption: str, table: Table | None, label: str) -> str:
        """A figure with a chart, and its values as a table that can be unfolded; ``name`` is unique on the page."""
        from bokeh.embed import json_item  # noqa: PLC0415  takes half a second, and a PDF needs none

        self._charts.append({"id": name, "item": json_item(chart, name)})
        text = (
            ""
            if table is None
            else f"<details><summary>{escape(label)} as a table</summary>{html_table(table)}</details>"
        )
        return (
            f'<figure><div id="{name}" class="chart" role="group" aria-label="{escape(label)}"></div>'
            f"<figcaption>{escape(caption)}</figcaption>{text}</figure>"
        )

    def timeline(self, days: Sequence[TimelineDay]) -> str:
        """The chart of a day with a selector of days, and buttons that move the view."""
        self._days = [_encode_day(day) for day in days]
        by_date = sorted(range(len(days)), key=lambda number: (days[number].start, days[number].product))
        options = "".join(
            f'<option value="{number}"{" selected" if number == 0 else ""}>{escape(_name_day(days[number]))}</option>'
            for number in by_date
        )
        buttons = "".join(
            f'<button type="button" data-move="{move}">{text}</button>'
            for move, text in (
                *(("previous", "previous alert"), ("next", "next alert"), ("earlier", "earlier"), ("later", "later")),
                *(("in", "zoom in"), ("out", "zoom out"), ("day", "complete day")),
            )
        )
        keys = "".join(f'<li><span class="key {style}"></span>{text}</li>' for style, text in HORIZON_KEYS)
        return (
            f'<div class="controls"><label for="day">Day (UTC)</label> <select id="day">{options}</select>'
            f"{buttons}</div>"
            f'<ul class="keys quiet">{keys}</ul>'
            + self.chart("timeline", timeline_chart(), _TIMELINE_CAPTION, None, "Price and probability over time")
            + '<p class="quiet" id="day-note" aria-live="polite"></p>'
        )

    def html(self) -> str:
        """The complete document."""
        scripts = ""
        if self._charts:
            data = "".join(
                f'<script type="application/json" id="{name}">{_json(values)}</script>\n'
                for name, values in (("charts", self._charts), ("days", self._days))
            )
            scripts = f"<script>{_bokeh()}</script>\n{data}<script>{_static('page.js')}</script>\n"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f"<title>{escape(self.title)}</title><style>{_static('page.css')}</style></head>\n<body><main>\n"
            + "\n".join(self._body)
            + "\n<noscript><p>The charts need JavaScript; the tables show their values.</p></noscript>"
            + f"</main>\n{scripts}</body></html>\n"
        )


_TIMELINE_CAPTION: Final = (
    "Drag to move, turn the wheel to zoom, point for values; both panels move together. If more rows are in view than "
    "fit, the lines show the highest and the lowest value of each group of neighbouring rows, never an average."
)


@cache
def _static(name: str) -> str:
    return files("volspike.reporting").joinpath("static", name).read_text(encoding="utf-8")


def _bokeh() -> str:
    """BokehJS from the installed package."""
    from bokeh.resources import Resources  # noqa: PLC0415

    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)


def _json(values: Any) -> str:
    """JSON that cannot end the element that it is in."""
    return json.dumps(values, allow_nan=False, default=_plain, separators=(",", ":")).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


def _name_day(day: TimelineDay) -> str:
    events = len(day.spans)
    return f"{day.day} {day.product}: {events} spike event{'s' if events != 1 else ''}, {len(day.alerts)} alerts"


def _encode_day(day: TimelineDay) -> dict[str, Any]:
    columns: dict[str, NDArray[Any]] = {
        name: getattr(day, name) for name in ("at", "close", "probability", "threshold")
    }
    if day.is_complete:
        note = f"{day.day} {day.product}: all {day.rows:,} rows."
    else:
        columns |= {"low": day.low, "high": day.high}
        note = (
            f"{day.day} {day.product}: {day.rows:,} rows in {len(day.at):,} bars of {day.bar_s} s, with the lowest and "
            "highest price and the highest probability of each."
        )
    return {
        "start": day.start // 1_000_000,
        "end": day.start // 1_000_000 + 86_400_000,
        "note": note,
        "columns": {name: b64encode(values.tobytes()).decode() for name, values in columns.items()},
        "alerts": {
            "start": [alert.opened / 1e6 for alert in day.alerts],
            "end": [alert.closed / 1e6 for alert in day.alerts],
            "text": [describe_alert(alert) for alert in day.alerts],
            "style": [OUTCOME_CLASSES[str(alert.outcome)] for alert in day.alerts],
        },
        "spikes": {
            "start": [span.first / 1e6 for span in day.spans],
            "end": [span.last / 1e6 for span in day.spans],
            "text": [describe_span(span) for span in day.spans],
            "style": ["spike"] * len(day.spans),
        },
        "missing": {
            "start": [each.start / 1e6 for each in day.missing],
            "end": [each.end / 1e6 for each in day.missing],
            "text": [
                f"{format_time(each.start)[11:19]} {each.cause}, {(each.end - each.start) / SECOND_NS:,.0f} s"
                for each in day.missing
            ],
            "style": [MISSING_STYLES[each.cause] for each in day.missing],
        },
    }


def coarse_days_note(days: Sequence[TimelineDay], scored: Scored) -> str:
    """How the days of a timeline were chosen from those of the rows, and reduced."""
    all_days = len({*zip(scored.product.tolist(), scored.day.tolist(), strict=True)})
    kept = (
        "" if len(days) == all_days else f" The {len(days)} days with the most spike events of {all_days} are listed."
    )
    coarse = (
        ""
        if all(day.is_complete for day in days)
        else f" It is shown in the most detail; other days have bars of {COARSE_BAR_S} s, which keeps the file small."
    )
    return f"The day with the most spike events is selected.{coarse}{kept}"


def section(title: str, *parts: str, level: int = 2) -> str:
    """A section with its heading; "" without content."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h{level}>{escape(title)}</h{level}>\n{body}</section>" if body else ""


def paragraph(text: str, style: str = "") -> str:
    """A paragraph; "" without text."""
    attribute = f' class="{style}"' if style else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def bullets(sentences: Sequence[str]) -> str:
    """A list; "" without items."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in sentences)}</ul>" if sentences else ""


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Figures in large type, each with its meaning below."""
    cells = "".join(f"<div><b>{escape(value)}</b>{escape(text)}</div>" for value, text in figures)
    return f'<div class="tiles">{cells}</div>'


def html_table(table: Table, classes: Sequence[str] = ()) -> str:
    """A table; the third cell of row i has the class ``classes[i]``."""
    columns = ["text" if column < table.texts else "number" for column in range(len(table.heads))]
    head = _html_row('th scope="col"', table.heads, columns)
    rows = []
    for index, cells in enumerate(table.rows):
        marked = [*columns[:2], f"{columns[2]} {classes[index]}", *columns[3:]] if classes else columns
        rows.append(_html_row("td", cells, marked))
    heads = ", ".join(filter(None, table.heads))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="table: {escape(heads)}">'
        f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _html_row(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    name = tag.partition(" ")[0]
    inner = (f'<{tag} class="{style}">{escape(text)}</{name}>' for text, style in zip(cells, classes, strict=True))
    return f"<tr>{''.join(inner)}</tr>"
