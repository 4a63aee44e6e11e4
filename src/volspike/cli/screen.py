"""Terminal output of the commands: progress and warnings on stderr, tables and figures on stdout."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from volspike.progress import OnStep, Step

if TYPE_CHECKING:
    from volspike.models.evidence import Limitation
    from volspike.tape import TapeReport

PIPED_WIDTH = 160
"""Width of output that is not a terminal, so that tables in files and pipes keep their columns."""

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
"""Prints text as it is: brackets in a file name are not markup."""

out = Console(**PLAIN, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(**PLAIN, stderr=True)
progress_console = Console(**PLAIN, stderr=True)
"""Progress only; ``--quiet`` silences it."""

BAR_EVERY_S = 0.2
LINE_EVERY_S = 10.0

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


class Operation:
    """A running operation: its text, the share that is done, and an estimate of the time left."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.text, self._title, self._clock = title, title, clock
        self.done = 0.0
        self._began = self._updated = clock()

    def show(self, text: str) -> None:
        """Shows the text of a step; a ``Step`` also sets the share that is done."""
        self.text = f"{self._title}: {text}" if text else self._title
        if isinstance(text, Step) and text.done != self.done:
            self.done, self._updated = text.done, self._clock()

    def seconds_left(self) -> float | None:
        """The time left if the rest goes on as fast as the part that is done; None if nothing is done yet."""
        if self.done <= 0.0:
            return None
        expected = (self._updated - self._began) * (1.0 - self.done) / self.done
        return max(0.0, expected - (self._clock() - self._updated))

    def time_text(self) -> str:
        """Percentage and time left; the elapsed time as long as nothing is done."""
        left = self.seconds_left()
        if left is None:
            return f"{duration(self._clock() - self._began)} so far"
        return f"{self.done:.0%}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """A duration for people.

    >>> [duration(seconds) for seconds in (9.6, 125, 7260)]
    ['10 s', '2 min 5 s', '2 h 1 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def working(title: str) -> Iterator[OnStep]:
    """The progress of a long operation; yields the function that receives its steps.

    On a terminal it is a bar with percentage and time left; otherwise a line on stderr every ``LINE_EVERY_S`` seconds.
    With ``--quiet`` there is none.
    """
    operation = Operation(title)
    if progress_console.quiet:
        yield operation.show
    elif sys.stderr.isatty() and not progress_console.is_dumb_terminal:
        with _bar(operation) as show:
            yield show
    else:
        with _lines(operation):
            yield operation.show


@contextmanager
def _bar(operation: Operation) -> Iterator[OnStep]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=progress_console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(operation.text, total=None, left="")

        def refresh() -> None:
            total = 1.0 if operation.done else None
            left = operation.time_text()
            progress.update(task, description=operation.text, completed=operation.done, total=total, left=left)
            progress.refresh()

        with _repeated(refresh, BAR_EVERY_S):
            yield operation.show


@contextmanager
def _lines(operation: Operation) -> Iterator[None]:
    with _repeated(lambda: progress_console.print(f"{operation.text}, {operation.time_text()}"), LINE_EVERY_S):
        yield


@contextmanager
def _repeated(step: Callable[[], None], every_s: float) -> Iterator[None]:
    """Calls ``step`` in a thread every so many seconds until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            step()

    thread = threading.Thread(target=run, name="volspike-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def reading(title: str) -> Iterator[Callable[[TapeReport], None]]:
    """The progress of reading tapes, by bytes; yields a function that receives the report."""
    with working(title) as show:

        def show_report(report: TapeReport) -> None:
            size = f"{report.bytes_read / 1e6:,.0f} of {report.total_bytes / 1e6:,.0f} MB"
            show(Step(f"{size}, {report.ticks:,} ticks", report.bytes_read / max(1, report.total_bytes)))

        yield show_report


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
