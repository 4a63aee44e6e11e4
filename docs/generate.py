"""Pages that are made from the code: ``python docs/generate.py [--check]``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer.main

from volspike.cli.app import app
from volspike.features import DEFAULT_WINDOWS, FAMILIES, FeatureSet
from volspike.features.specification import LOOKS, ROW_MEANINGS
from volspike.serving.metrics import DECLARED

DOCS = Path(__file__).parent
MADE = "<!-- made by `make docs`; do not edit -->\n\n"


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return row(*heads) + row(*["---"] * len(heads)) + "".join(row(*cells) for cells in rows) + "\n"


def feature_spec() -> str:
    """The feature set and the other columns of a row."""
    features = FeatureSet()
    families = [(f"`{f.name}_{{w}}s`", f.unit, f.meaning, LOOKS[f.name]) for f in FAMILIES]
    columns = [(f"`{name}`", meaning) for name, meaning in ROW_MEANINGS.items()]
    windows = ", ".join(map(str, DEFAULT_WINDOWS))
    return (
        f"{MADE}# Features\n\n"
        f"Seven families over windows of {windows} seconds make {len(features.names)} features, digest "
        f"`{features.digest}`. `--windows` chooses others; a model carries the digest that it was trained on and "
        "refuses every other.\n\n"
        + table(("feature", "unit", "what it is", "which seconds it looks at"), families)
        + (DOCS / "feature_rules.md").read_text()
        + "\n## The other columns of a row\n\n"
        + table(("column", "what it is"), columns)
    )


def metrics() -> str:
    """Every metric of the API."""
    rows = [(f"`{metric.name}`", metric.kind, metric.unit or "–", metric.meaning) for metric in DECLARED]
    return f"{MADE}# Metrics\n\nWhat `GET /metrics` tells Prometheus.\n\n" + table(
        ("metric", "kind", "unit", "what it is"), rows
    )


def cli() -> str:
    """Every command with its options."""
    group: Any = typer.main.get_command(app)
    parts = [f"{MADE}# Commands\n\n{app.info.epilog}\n"]
    for name, command in group.commands.items():
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


PAGES = {"feature_spec.md": feature_spec, "metrics.md": metrics, "cli.md": cli}


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
