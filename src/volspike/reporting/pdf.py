"""A4 pages that are written on from top to bottom: headings, paragraphs, tables and pictures that keep together.

The typeface is DejaVu Sans, which matplotlib brings along: it has the field's signs (τ, ±, …), as the standard fonts of
PDF have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
from fpdf import FPDF
from fpdf.enums import TableBordersLayout, WrapMode, XPos, YPos
from fpdf.fonts import FontFace
from PIL import Image

MARGIN_MM: Final = 16.0
TEXT_MM: Final = 210.0 - 2 * MARGIN_MM
_FONT: Final = "DejaVu"
_FACES: Final = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf", "I": "DejaVuSans-Oblique.ttf"}
_SIZES: Final = (20.0, 15.0, 11.0)
_BODY_PT: Final = 9.0
_TABLE_PT: Final = 8.0
_GREY: Final = (95, 95, 95)
_LOUD: Final = (178, 24, 107)
_HEAD_FILL: Final = (236, 240, 244)
_LINE: Final = (190, 190, 190)
_KEEP_MM: Final = 30.0
"""A heading with less than this below it goes to the next page."""


class _Sheets(FPDF):
    """Pages with a line of small print at the bottom."""

    def __init__(self, footer: str) -> None:
        super().__init__(orientation="P", unit="mm", format="A4")
        self._footer = footer

    def footer(self) -> None:
        """The document's name and the page's number."""
        self.set_y(-MARGIN_MM + 4)
        self.set_font(_FONT, size=7)
        self.set_text_color(*_GREY)
        self.cell(TEXT_MM - 20, 4, fitting(self, self._footer, TEXT_MM - 22), align="L")
        self.cell(20, 4, f"{self.page_no()}", align="R")


def fitting(sheets: FPDF, text: str, width_mm: float) -> str:
    """``text``, or its beginning where it is wider."""
    while sheets.get_string_width(text) > width_mm:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text


def height_of(png: bytes, width_mm: float = TEXT_MM) -> float:
    """The millimetres that a picture takes from top to bottom."""
    with Image.open(BytesIO(png)) as image:
        return float(width_mm * image.height / image.width)


class Paper:
    """A document in the making."""

    def __init__(self, title: str, footer: str) -> None:
        self._sheets = sheets = _Sheets(footer)
        fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
        for style, file in _FACES.items():
            sheets.add_font(_FONT, style, fonts / file)
        sheets.set_margins(MARGIN_MM, MARGIN_MM, MARGIN_MM)
        sheets.set_auto_page_break(auto=True, margin=MARGIN_MM)
        sheets.set_title(title)
        sheets.set_creator("volspike")
        sheets.set_lang("en")
        sheets.set_draw_color(*_LINE)
        sheets.add_page()

    def page(self) -> None:
        """Goes on at the top of a new page."""
        self._sheets.add_page()

    def heading(self, text: str, level: int, *, above: float = _KEEP_MM) -> None:
        """A heading that stands in the outline too; ``above`` millimetres of what follows stay on its page."""
        size = _SIZES[level]
        if self._sheets.will_page_break(size / 2 + above):
            self.page()
        self._sheets.ln(0 if level == 0 else 2)
        self._sheets.start_section(text, level=level, strict=False)
        self._write(text, size, style="B")
        self._sheets.ln(1.5)

    def say(self, text: str, *, style: str = "", small: bool = False) -> None:
        """A paragraph."""
        self._write(text, 7.5 if small else _BODY_PT, style=style, colour=_GREY if small else (0, 0, 0))
        self._sheets.ln(1.5)

    def shout(self, text: str) -> None:
        """A paragraph that must not be overlooked."""
        self._write(text, _BODY_PT, style="B", colour=_LOUD)
        self._sheets.ln(1.5)

    def listed(self, sentences: Sequence[str]) -> None:
        """Each sentence after a dash."""
        for sentence in sentences:
            self._write(f"–  {sentence}", _BODY_PT)
            self._sheets.ln(0.8)

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[float],
        *,
        texts: int = 1,
        size_pt: float = _TABLE_PT,
    ) -> None:
        """Rows under heads that come again on every page; the first ``texts`` columns are text, the others numbers.

        ``widths`` are shares of the page's width; ``rows`` are as long as ``heads``.
        """
        self._sheets.set_font(_FONT, size=size_pt)
        self._sheets.set_text_color(0, 0, 0)
        with self._sheets.table(
            width=TEXT_MM,
            col_widths=tuple(widths),
            text_align=tuple("LEFT" if column < texts else "RIGHT" for column in range(len(heads))),
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            headings_style=FontFace(emphasis="BOLD", fill_color=_HEAD_FILL),
            line_height=4.0,
            padding=(0.7, 1.0),
        ) as table:
            for cells in (heads, *rows):
                table.row(tuple(cells))
        self._sheets.ln(3)

    def picture(self, png: bytes, alt: str, *, width_mm: float = TEXT_MM) -> None:
        """A picture in the middle, whole on one page; ``alt`` says what it shows."""
        height_mm = height_of(png, width_mm)
        if self._sheets.will_page_break(height_mm + 2):
            self.page()
        x = (210.0 - width_mm) / 2
        self._sheets.image(BytesIO(png), x=x, w=width_mm, h=height_mm, alt_text=alt)
        self._sheets.ln(2)

    def content(self) -> bytes:
        """The document as a file."""
        return bytes(self._sheets.output() or b"")

    def _write(self, text: str, size: float, *, style: str = "", colour: tuple[int, int, int] = (0, 0, 0)) -> None:
        self._sheets.set_font(_FONT, style, size)
        self._sheets.set_text_color(*colour)
        self._sheets.multi_cell(
            TEXT_MM,
            size * 0.5,
            text,
            align="L",
            new_x=XPos.LMARGIN,
            new_y=YPos.NEXT,
            wrapmode=WrapMode.WORD,
        )
