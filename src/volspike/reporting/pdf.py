"""A4 PDF pages written from top to bottom: headings, paragraphs, tables and pictures that are not split.

The typeface is DejaVu Sans, which matplotlib ships: it has τ and ±, which the standard PDF fonts lack.
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
"""A heading with less space than this below it moves to the next page."""


class _Sheets(FPDF):
    """Pages with a footer, and a banner at the top while there is one."""

    def __init__(self, footer: str, banner: str) -> None:
        super().__init__(orientation="P", unit="mm", format="A4")
        self._footer = footer
        self.banner = banner

    def header(self) -> None:
        """The banner."""
        if not self.banner:
            return
        self.set_font(_FONT, "B", size=9)
        self.set_text_color(255, 255, 255)
        self.set_fill_color(*_LOUD)
        self.multi_cell(TEXT_MM, 5.5, self.banner, align="C", fill=True, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(3)

    def footer(self) -> None:
        """The document's name and the page's number."""
        self.set_y(-MARGIN_MM + 4)
        self.set_font(_FONT, size=7)
        self.set_text_color(*_GREY)
        self.cell(TEXT_MM - 20, 4, fit_text(self, self._footer, TEXT_MM - 22), align="L")
        self.cell(20, 4, f"{self.page_no()}", align="R")


def fit_text(sheets: FPDF, text: str, width_mm: float) -> str:
    """``text``, shortened to the width if necessary."""
    while sheets.get_string_width(text) > width_mm:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text


def height_of(png: bytes, width_mm: float = TEXT_MM) -> float:
    """The height of a picture of this width, in millimetres."""
    with Image.open(BytesIO(png)) as image:
        return float(width_mm * image.height / image.width)


class Paper:
    """A PDF document under construction; ``banner`` is at the top of every page that begins while it is set."""

    def __init__(self, title: str, footer: str, banner: str = "") -> None:
        self._sheets = sheets = _Sheets(footer, banner)
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

    def start_page(self, banner: str | None = None) -> None:
        """Start a new page, from which on the banner is ``banner``; None keeps it."""
        self._sheets.banner = self._sheets.banner if banner is None else banner
        self._sheets.add_page()

    def heading(self, text: str, level: int, *, above: float = _KEEP_MM) -> None:
        """Write a heading, also in the outline; at least ``above`` millimetres below it stay on its page."""
        size = _SIZES[level]
        if self._sheets.will_page_break(size / 2 + above):
            self.start_page()
        self._sheets.ln(0 if level == 0 else 2)
        self._sheets.start_section(text, level=level, strict=False)
        self._write(text, size, style="B")
        self._sheets.ln(1.5)

    def paragraph(self, text: str, *, style: str = "", small: bool = False) -> None:
        """Write a paragraph."""
        self._write(text, 7.5 if small else _BODY_PT, style=style, colour=_GREY if small else (0, 0, 0))
        self._sheets.ln(1.5)

    def warning(self, text: str) -> None:
        """Write a highlighted paragraph."""
        self._write(text, _BODY_PT, style="B", colour=_LOUD)
        self._sheets.ln(1.5)

    def bullets(self, sentences: Sequence[str]) -> None:
        """Write each sentence as a list item."""
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
        """Write a table whose heads repeat on every page; the first ``texts`` columns are text, the others numbers.

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
            line_height=3.9,
            padding=(0.4, 1.0),
        ) as table:
            for cells in (heads, *rows):
                table.row(tuple(cells))
        self._sheets.ln(3)

    def picture(self, png: bytes, alt: str, *, width_mm: float = TEXT_MM) -> None:
        """Place a centred picture on one page; ``alt`` describes it for screen readers."""
        height_mm = height_of(png, width_mm)
        if self._sheets.will_page_break(height_mm + 2):
            self.start_page()
        x = (210.0 - width_mm) / 2
        self._sheets.image(BytesIO(png), x=x, w=width_mm, h=height_mm, alt_text=alt)
        self._sheets.ln(2)

    def pair(self, left: bytes, right: bytes, alts: tuple[str, str]) -> None:
        """Place two pictures of equal shape next to each other; ``alts`` describe them for screen readers."""
        width_mm = (TEXT_MM - 4) / 2
        height_mm = max(height_of(left, width_mm), height_of(right, width_mm))
        if self._sheets.will_page_break(height_mm + 2):
            self.start_page()
        top = self._sheets.get_y()
        for x, png, alt in zip((MARGIN_MM, MARGIN_MM + width_mm + 4), (left, right), alts, strict=True):
            self._sheets.image(BytesIO(png), x=x, y=top, w=width_mm, alt_text=alt)
        self._sheets.set_y(top + height_mm + 2)

    def content(self) -> bytes:
        """The document's bytes."""
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
