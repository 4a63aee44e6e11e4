"""Pages that are made from the code: ``python docs/generate.py [--check]``."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volspike.api import metrics as api_metrics
from volspike.cli.app import COMMANDS, app, load_command
from volspike.features import DEFAULT_WINDOWS, FAMILIES, Feature, FeatureEngine, FeatureSet, Scope
from volspike.features.catalogue import GROUPS
from volspike.features.specification import LOOKS, ROW_MEANINGS, SCOPE_MEANINGS, entries
from volspike.live import metrics as metrics_live
from volspike.models import DEFAULT_MODEL, METADATA_FILE
from volspike.models.metadata import decoded
from volspike.reporting.card import model_card
from volspike.reporting.format import table
from volspike.streams import metrics as stream_metrics
from volspike.telemetry import LABELS, Declared

DOCS = Path(__file__).parent
MADE = "<!-- made by `make docs`; do not edit -->\n\n"


def feature_spec() -> str:
    """The feature sets, their features and the other columns of a row."""
    families = [(f"`{f.name}_{{w}}s`", f.unit, f.meaning, LOOKS[f.name]) for f in FAMILIES]
    columns = [(f"`{name}`", meaning) for name, meaning in ROW_MEANINGS.items()]
    windows = ", ".join(map(str, DEFAULT_WINDOWS))
    return (
        f"{MADE}# Features\n\n"
        "`--feature-set` chooses how many features a row has, `--windows` the seconds that the seven families look at "
        f"(here {windows}), and `--leader` a product whose volatility stands in every product's rows, from the "
        "full set on: two features more. A model carries the digest of its set and refuses every other.\n\n"
        + table(("set", "features", "digest", "memory a product", "what it has"), [scope_row(s) for s in Scope])
        + "## The seven families\n\n"
        + table(("feature", "unit", "what it is", "which seconds it looks at"), families)
        + (DOCS / "feature_rules.md").read_text()
        + "".join(f"\n### {name}\n\n{catalogue_table(group)}".rstrip("\n") + "\n" for name, group in GROUPS.items())
        + "\n## The other columns of a row\n\n"
        + table(("column", "what it is"), columns)
    )


def scope_row(scope: Scope) -> tuple[str, ...]:
    """A feature set over the default windows."""
    features = FeatureSet(scope=scope)
    memory = f"{FeatureEngine(features).bytes_per_product / 1000:.0f} kB"
    return f"`{scope}`", str(len(features.names)), f"`{features.digest}`", memory, SCOPE_MEANINGS[scope]


def catalogue_table(group: Sequence[Feature]) -> str:
    """One group of the catalogue, a line for what differs in its span alone."""
    lines = [
        (f"`{e.name}`", spans(e.spans), e.unit, e.meaning, f"{e.formula}", e.source or "–") for e in entries(group)
    ]
    return table(("feature", "w", "unit", "what it is", "formula", "source"), lines)


def spans(told: Sequence[str]) -> str:
    """Spans, or the first and the last of many."""
    return (", ".join(told) or "–") if len(told) < 10 else f"{told[0]} … {told[-1]}"


METRICS = {
    "The API": ("`GET /metrics` of `volspike serve` and of `volspike up`.", api_metrics.DECLARED),
    "The model": ("The same; absent while no model is served.", api_metrics.MODEL_METRICS),
    "Training and drift": (
        "The same, read from the files of the last training run and the last look for drift; absent before the first.",
        api_metrics.RESULT_METRICS,
    ),
    "The live market": (
        "`GET /metrics` of `volspike up`; those of feed and tape also at `--metrics-port` of `volspike ingest`.",
        metrics_live.DECLARED,
    ),
    "Workers on Kafka": (
        "`--metrics-port` of `volspike featurize` and `volspike predict-stream`.",
        stream_metrics.DECLARED,
    ),
}


def metrics() -> str:
    """Every metric with its labels, and what bounds them."""
    parts = [f"{MADE}# Metrics\n\nWhat Prometheus is told. Counters start anew with the process.\n"]
    for title, (where, declared) in METRICS.items():
        parts.append(f"\n## {title}\n\n{where}\n\n")
        parts.append(
            table(
                ("metric", "kind", "unit", "labels", "what it is"), [metric_row(metric) for metric in declared]
            ).rstrip("\n")
        )
        parts.append("\n")
    used = sorted({label for _, declared in METRICS.values() for metric in declared for label in metric.labels})
    rows = [(f"`{label}`", LABELS[label]) for label in used]
    return (
        "".join(parts)
        + "\n## Labels\n\nThe values of each come from a bounded set.\n\n"
        + table(("label", "its values"), rows)
    )


def metric_row(metric: Declared) -> tuple[str, ...]:
    """A metric as the page shows it."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"`{metric.name}`", metric.kind, metric.unit, labels or "–", metric.meaning


def cli() -> str:
    """Every command with its options."""
    parts = [f"{MADE}# Commands\n\n{app.info.epilog}\n"]
    for name in COMMANDS:
        command = load_command(name)
        parts.append(f"\n## volspike {name}\n\n{command.help.strip()}\n\n")
        options = [option(param) for param in command.params if param.name != "help"]
        parts.append(table(("option", "default", "what it does"), options))
        parts.append(f"    {command.epilog.removeprefix('Example: ')}\n")
    return "".join(parts)


def option(param: Any) -> tuple[str, str, str]:
    """One option's spelling, default and help."""
    several = " …" if getattr(param, "multiple", False) else ""
    default = "required" if param.required else shown(param.default)
    return f"`{'`, `'.join(param.opts)}`{several}", default, re.sub(r"\s+", " ", param.help or "")


def shown(default: Any) -> str:
    """A default as a user would write it."""
    if default is None or default is False:
        return "–"
    if isinstance(default, list | tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{default}`"


def model_card_v1() -> str:
    """The card of the model that ships."""
    return MADE + model_card(decoded((DEFAULT_MODEL / METADATA_FILE).read_bytes()))


def performance_summary() -> str:
    """What the models reached on the recordings."""
    return MADE + str(runpy.run_path(str(DOCS / "performance.py"))["performance_summary"]())


def grafana_dashboard() -> str:
    """Grafana's dashboard."""
    return str(runpy.run_path(str(DOCS / "grafana.py"))["board"]())


PAGES = {
    "feature_spec.md": feature_spec,
    "metrics.md": metrics,
    "cli.md": cli,
    "model_card_v1.md": model_card_v1,
    "performance_summary.md": performance_summary,
    "../docker/grafana/dashboards/crypto-volatility.json": grafana_dashboard,
}


def stale() -> list[str]:
    """The pages that are not what the code says."""
    return [name for name, page in PAGES.items() if not (DOCS / name).is_file() or (DOCS / name).read_text() != page()]


def main() -> None:
    """Writes the pages, or with --check names the stale ones and fails."""
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale())}; run `make docs`" if stale() else 0)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
