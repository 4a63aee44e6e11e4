"""A measured figure beside what was asked of it, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what, how much, what was asked, and against whom."""

    what: str
    measured: str
    asked: str
    is_met: bool
    beside: str = ""

    def cells(self) -> list[str]:
        """The line's cells."""
        return [self.what, self.measured, self.asked, "yes" if self.is_met else "NO", self.beside]


HEADS = ("what", "measured", "asked", "met", "beside it, in the same run")


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = [HEADS, ("---",) * len(HEADS), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
