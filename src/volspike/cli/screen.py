"""Terminal output of the commands: progress and warnings on stderr, tables and figures on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from volspike.models.evidence import Limitation
    from volspike.tape import TapeReport

PIPED_WIDTH = 160
"""Width of output that is not a terminal, so that tables in files and pipes keep their columns."""

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
"""Prints text as it is: brackets in a file name are not markup."""

out = Console(**PLAIN, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(**PLAIN, stderr=True)

SIMULATED = "SIMULATED market: these numbers show that the software works; they say nothing about a real market."


def warn(text: str) -> None:
    """Prints one warning line on stderr."""
    err.print(f"warning: {text}", style="yellow")


def warn_of_limitations(model: str, limitations: Iterable[Limitation]) -> None:
    """Prints one warning line for each limitation of a model."""
    for limitation in limitations:
        warn(f"{model}: {limitation.text}")


def note_if_simulated(simulated: bool) -> None:
    """Labels the numbers that follow if they come from a simulated market."""
    if simulated:
        out.print(SIMULATED, style="bold magenta")


@contextmanager
def reading(title: str) -> Iterator[Callable[[TapeReport], None]]:
    """A progress bar over the bytes of the tapes; yields a function that updates it from a report."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=None)

        def show(report: TapeReport) -> None:
            progress.update(task, completed=report.bytes_read, total=report.total_bytes)

        yield show


@contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner with a line of text during a long operation; yields a function that changes the text."""
    with err.status(title) as status:
        yield status.update


def print_tape_report(report: TapeReport) -> None:
    """Prints on stderr what was dropped from the tapes, and why."""
    for rejected in report.rejections[:5]:
        warn(f"{rejected.file}:{rejected.line}: {rejected.reason}")
    if report.rejected:
        files = ", ".join(report.rejected_files)
        kept = f" and kept in {files}" if files else ""
        warn(f"{report.rejected:,} damaged of {report.lines:,} lines were dropped{kept}")
    for note in report.notes:
        warn(f"{note.file}: {note.text}")


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash if it is undefined."""
    return "–" if value is None or isnan(value) else f"{value:.{digits}f}"


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> None:
    """Prints a table; the first ``texts`` columns are text, the others numbers."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, head in enumerate(heads):
        shown.add_column(head, justify="left" if index < texts else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
