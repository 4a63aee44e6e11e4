"""A measurement with its target and reference, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_TARGET = "none"
"""The target of a figure that is only published."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: subject, measured value, target, and a reference of the same run."""

    what: str
    measured: str
    target: str
    is_met: bool
    reference: str = ""

    def cells(self) -> list[str]:
        """The cells of the row."""
        met = "–" if self.target == NO_TARGET else "yes" if self.is_met else "NO"
        return [self.what, self.measured, self.target, met, self.reference]


HEADS = ("subject", "measured", "target", "met", "reference, same run")


def markdown(figures: Sequence[Figure]) -> str:
    """The measurements as a Markdown table."""
    lines = [HEADS, ("---",) * len(HEADS), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
