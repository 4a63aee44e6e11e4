"""Tables of Markdown pages."""

from __future__ import annotations

from collections.abc import Sequence


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with an empty line after it."""
    return row(*heads) + row(*["---"] * len(heads)) + "".join(row(*cells) for cells in rows) + "\n"
