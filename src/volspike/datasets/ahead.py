"""Tapes read ahead by other processes, in the order in which they will be needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from volspike.market import Ticks
from volspike.tape import TapeReport, rejected_path


class Reading(Protocol):
    """A tape that is being read elsewhere."""

    def ticks(self) -> Iterator[Ticks]:
        """Its ticks in their order, once; waits for them."""
        ...

    def report(self) -> TapeReport:
        """What became of the tape; after the last tick."""
        ...


class Readers(Protocol):
    """Who reads tapes elsewhere. ``workers`` is how many are read at the same time."""

    @property
    def workers(self) -> int:
        """Their number."""
        ...

    def read(self, tape: Path) -> Reading:
        """Begins to read a tape."""
        ...


class Ahead:
    """The tapes of one replay: as many as there are workers are read, or lie ready, before they are asked for.

    The report is that of reading them here; its lists go tape by tape, also where tapes overlap.
    """

    def __init__(self, readers: Readers, report: TapeReport) -> None:
        self._readers = readers
        self._report = report
        self._waiting: deque[Path] = deque()
        self._begun: dict[Path, Reading] = {}

    @classmethod
    def of(cls, readers: Readers, tapes: Sequence[Path], report: TapeReport) -> Ahead | None:
        """None where nothing is won: one tape, or tapes that set their damaged lines aside in one file, in turn."""
        return cls(readers, report) if len({rejected_path(tape) for tape in tapes}) == len(tapes) > 1 else None

    def expect(self, tapes: Sequence[Path]) -> None:
        """Begins with the first of these."""
        self._waiting.extend(tapes)
        self._fill()

    def ticks(self, tape: Path) -> Iterator[Ticks]:
        """The ticks of one of the expected tapes."""
        while tape not in self._begun:
            self._begin()
        reading = self._begun.pop(tape)
        self._fill()
        yield from reading.ticks()
        self._report.add(reading.report())

    def _fill(self) -> None:
        while self._waiting and len(self._begun) < self._readers.workers:
            self._begin()

    def _begin(self) -> None:
        tape = self._waiting.popleft()
        self._begun[tape] = self._readers.read(tape)
