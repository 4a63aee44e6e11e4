"""What became of the tapes that were read: how much, of what kind, and what was left out and why.

Damaged lines set aside: ``<tape>.rejected.ndjson`` beside the tape, so that what was refused can be looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from volspike.market import Kind, Ticks

KEPT_REJECTIONS = 100
"""How many rejections a report holds in full; the rest are counted, and all of them are set aside on disk."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """One damaged line: where it stands (``line`` counts from 1; the row of a Parquet tape) and why it was refused."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something about a whole file that its reader should know."""

    file: str
    text: str


@dataclass(slots=True)
class TapeReport:
    """Filled while tapes are read; whole once the last chunk was handed out.

    ``lines`` counts those that are not blank (rows of a Parquet tape), ``bytes_read`` and ``total_bytes`` are of
    the files as they lie on disk, so that the one over the other is the progress. ``ignored`` counts what is no
    tick and no damage (acks, heartbeats, order books, a recorder's own records) by its type, and ``history``,
    the trades of before a subscription. ``has_sizes`` says whether any tick told a trade's size.
    """

    lines: int = 0
    ticks: int = 0
    rejected: int = 0
    rejections: list[Rejected] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    simulated: bool = False
    kinds: set[Kind] = field(default_factory=set)
    has_sizes: bool = False
    products: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    bytes_read: int = 0
    total_bytes: int = 0

    def add_rejected(self, file: Path, line: int, reason: str) -> None:
        """Counts one damaged line, and keeps it while there are few."""
        self.rejected += 1
        if len(self.rejections) < KEPT_REJECTIONS:
            self.rejections.append(Rejected(str(file), line, reason))

    def add_note(self, file: Path, text: str) -> None:
        """Keeps what should be known about one file."""
        self.notes.append(Note(str(file), text))

    def add(self, other: TapeReport) -> None:
        """Joins what became of a tape that was read elsewhere; ``files`` and ``total_bytes`` stay as they were told."""
        self.lines += other.lines
        self.ticks += other.ticks
        self.rejected += other.rejected
        self.rejections.extend(other.rejections[: KEPT_REJECTIONS - len(self.rejections)])
        self.ignored.update(other.ignored)
        self.simulated |= other.simulated
        self.kinds |= other.kinds
        self.has_sizes |= other.has_sizes
        self.products.extend(name for name in other.products if name not in self.products)
        self.notes.extend(other.notes)
        self.set_aside.extend(name for name in other.set_aside if name not in self.set_aside)
        self.bytes_read += other.bytes_read

    def add_ticks(self, ticks: Ticks) -> None:
        """Counts what was read."""
        if len(ticks) == 0:
            return
        self.ticks += len(ticks)
        self.kinds.update(Kind(int(kind)) for kind in {ticks.kind.min(), ticks.kind.max()})
        self.has_sizes = self.has_sizes or not bool(np.isnan(ticks.last_size).all())
        self.products.extend(name for name in ticks.products if name not in self.products)


REJECTED_ENDING = ".rejected.ndjson"


def rejected_path(tape: Path) -> Path:
    """Where the damaged lines of ``tape`` go.

    >>> rejected_path(Path("data/ticks_BTCUSD.ndjson.zst")).name
    'ticks_BTCUSD.rejected.ndjson'
    """
    stem = tape.name.removesuffix(".zst").removesuffix(".gz")
    return tape.with_name(stem.rpartition(".")[0] + REJECTED_ENDING)


class SetAside:
    """The rejected lines of one tape, written to a temporary name and renamed by ``keep``.

    The same tape always gives the same file: an older one is replaced, and left alone where this reading rejects
    nothing. With ``joins`` the lines follow those of another tape of the same stem (``a.ndjson``, ``a.ndjson.gz``)
    that was read just before. A folder that cannot be written to is no reason to stop: ``fault`` says so.
    """

    def __init__(self, tape: Path, *, joins: bool = False) -> None:
        self.target = rejected_path(tape)
        self.fault: str | None = None
        self._tape = tape.name
        self._joins = joins
        self._part = self.target.with_name(self.target.name + ".part")
        self._file: BinaryIO | None = None

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Sets one line aside; bytes that are no UTF-8 become lone surrogates (Python's ``surrogateescape``)."""
        if self.fault is not None:
            return
        told = {"file": self._tape, "line": line, "reason": reason, "text": text.decode("utf-8", "surrogateescape")}
        try:
            self._opened().write(json.dumps(told).encode() + b"\n")
        except OSError as error:
            self.fault = f"rejected lines could not be set aside in {self.target.name}: {error.strerror or error}"
            self.discard()

    def keep(self) -> Path | None:
        """Gives the file its name; None where there is nothing to keep."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.target)
        except OSError as error:
            self.fault = f"rejected lines could not be set aside in {self.target.name}: {error.strerror or error}"
            self.discard()
            return None
        self._file = None
        return self.target

    def discard(self) -> None:
        """Removes what was written under the temporary name, if anything; after ``keep`` it does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            earlier = self.target.read_bytes() if self._joins else b""
            self._file = self._part.open("wb")
            self._file.write(earlier)
        return self._file
