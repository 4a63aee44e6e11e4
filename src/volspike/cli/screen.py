"""What the commands have in common on the screen: progress on stderr, tables and figures on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from volspike.tape import TapeReport

PIPED_WIDTH = 160
"""Columns where the output is no terminal: tables that somebody greps are not to be squeezed."""

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
"""Text is printed as it is: brackets in a file's name are no markup."""

out = Console(**PLAIN, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(**PLAIN, stderr=True)

SIMULATED = "SIMULATED market: these numbers show that the machinery works, and say nothing of a real one."


def warn(text: str) -> None:
    """One line that must not be overlooked."""
    err.print(f"warning: {text}", style="yellow")


def note_if_simulated(simulated: bool) -> None:
    """Says so wherever numbers of a simulated market are shown: where they go, this goes too."""
    if simulated:
        out.print(SIMULATED, style="bold magenta")


@contextmanager
def reading(title: str) -> Iterator[Callable[[TapeReport], None]]:
    """A progress bar over the bytes of the tapes that are read; call what it yields now and then."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=None)

        def show(report: TapeReport) -> None:
            progress.update(task, completed=report.bytes_read, total=report.total_bytes)

        yield show


@contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """A line that moves while something long runs; what it yields changes its text."""
    with err.status(title) as status:
        yield status.update


def tell_report(report: TapeReport) -> None:
    """What was left out of the tapes, on stderr: nothing is dropped in silence."""
    for rejected in report.rejections[:5]:
        warn(f"{rejected.file}:{rejected.line}: {rejected.reason}")
    if report.rejected:
        aside = ", ".join(report.set_aside)
        more = f"; set aside in {aside}" if aside else ""
        warn(f"{report.rejected:,} damaged of {report.lines:,} lines were left out{more}")
    for note in report.notes:
        warn(f"{note.file}: {note.text}")


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash for what is not defined."""
    return "–" if value is None or isnan(value) else f"{value:.{digits}f}"


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first column is text, the others numbers."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, head in enumerate(heads):
        shown.add_column(head, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
