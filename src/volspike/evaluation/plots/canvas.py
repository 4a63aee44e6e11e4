"""What all pictures share: size, colours, marks, and how they become bytes."""

from __future__ import annotations

from io import BytesIO
from itertools import cycle
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_IN: Final = 7.0
"""178 mm: an A4 page less its margins."""

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Told apart by colour-blind eyes too (Okabe and Ito, "Color Universal Design", 2008); yellow is too pale for paper."""

LINES: Final = ("-", "--", "-.", ":")
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
GREY: Final = "#767676"
_DPI: Final = 200


def styles() -> zip[tuple[str, str, str]]:
    """Colour, line and mark of the first, the second, … of any number of things."""
    return zip(cycle(COLOURS), cycle(LINES), cycle(MARKS), strict=False)


def drawn(title: str, height_in: float, *, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty picture with a title and named axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#e6e6e6", lw=0.8)
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """No frame above and to the right, and the grid behind what is drawn."""
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def png(figure: Figure) -> bytes:
    """The picture as a file; nothing of the moment or the machine is in it."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
