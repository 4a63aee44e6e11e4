"""The report of a reading: counts, products, rejected lines; and the files that keep rejected lines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from volspike.market import Kind, Ticks

KEPT_REJECTIONS = 100
"""Rejections that a report holds in full; all of them are counted, and kept on disk."""

REJECTED_ENDING = ".rejected.ndjson"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One damaged line: its number from 1 (in a Parquet tape or a table, its row) and the reason."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A remark about a complete file; ``is_loss`` if data is or may be missing."""

    file: str
    text: str
    is_loss: bool = True


class NumberedTicks(NamedTuple):
    """Ticks of a tape, each with the number of its line or row, from 1."""

    ticks: Ticks
    numbers: NDArray[np.int64]


@dataclass(slots=True)
class TapeReport:
    """The result of reading tapes; complete once the last chunk was returned.

    ``lines`` counts the lines that are not blank (rows of a Parquet tape). ``bytes_read`` and ``total_bytes`` are sizes
    on disk, so that their ratio is the progress. ``ignored`` counts, by type, what is neither a tick nor damaged
    (acknowledgements, heartbeats, order books, a recorder's own records) and, as ``history``, the trades from before a
    subscription. ``has_sizes`` is True if any tick has the size of a trade. ``clock_steps`` counts the places where
    the exchange's times go back for longer than a few ticks.
    """

    lines: int = 0
    ticks: int = 0
    rejected: int = 0
    clock_steps: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    simulated: bool = False
    kinds: set[Kind] = field(default_factory=set)
    has_sizes: bool = False
    products: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    rejected_files: list[str] = field(default_factory=list)
    bytes_read: int = 0
    total_bytes: int = 0

    def add_ticks(self, ticks: Ticks) -> None:
        """Counts ticks."""
        if len(ticks) == 0:
            return
        self.ticks += len(ticks)
        self.kinds.update(Kind(int(kind)) for kind in {ticks.kind.min(), ticks.kind.max()})
        self.has_sizes = self.has_sizes or not bool(np.isnan(ticks.last_size).all())
        self.products.extend(name for name in ticks.products if name not in self.products)

    def add_rejected(self, file: object, line: int, reason: str) -> None:
        """Counts one damaged line of a file or table, and keeps the first ones."""
        self.rejected += 1
        if len(self.rejections) < KEPT_REJECTIONS:
            self.rejections.append(Rejection(str(file), line, reason))

    def add_note(self, file: object, text: str, *, is_loss: bool = True) -> None:
        """Adds a remark about one file or table."""
        self.notes.append(Note(str(file), text, is_loss))

    def add(self, other: TapeReport) -> None:
        """Adds the report of one tape that another process read; ``files`` and ``total_bytes`` do not change."""
        self.lines += other.lines
        self.ticks += other.ticks
        self.rejected += other.rejected
        self.clock_steps += other.clock_steps
        self.rejections.extend(other.rejections[: KEPT_REJECTIONS - len(self.rejections)])
        self.ignored.update(other.ignored)
        self.simulated |= other.simulated
        self.kinds |= other.kinds
        self.has_sizes |= other.has_sizes
        self.products.extend(name for name in other.products if name not in self.products)
        self.notes.extend(other.notes)
        self.rejected_files.extend(name for name in other.rejected_files if name not in self.rejected_files)
        self.bytes_read += other.bytes_read


def rejected_path(tape: Path) -> Path:
    """The file that keeps the rejected lines of ``tape``.

    >>> rejected_path(Path("data/ticks_BTCUSD.ndjson.zst")).name
    'ticks_BTCUSD.rejected.ndjson'
    """
    stem = tape.name
    for packed in (".zst", ".gz", ".bz2", ".xz"):
        stem = stem.removesuffix(packed)
    return tape.with_name(stem.rpartition(".")[0] + REJECTED_ENDING)


class RejectionSink(Protocol):
    """A receiver of damaged lines, such as ``RejectedLines``."""

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Takes a damaged line; ``line`` is its number from 1."""


class RejectedLines:
    """The rejected lines of one tape, written to a temporary file that ``keep`` renames.

    The same tape always gives the same file: it replaces an older one, which stays if nothing is rejected. With
    ``appends`` the lines follow those of another tape of the same stem (``a.ndjson``, ``a.ndjson.gz``). If the file
    cannot be written, reading goes on and ``fault`` states the reason.
    """

    def __init__(self, tape: Path, *, appends: bool = False) -> None:
        self.target = rejected_path(tape)
        self.fault: str | None = None
        self._tape = tape.name
        self._appends = appends
        self._part = self.target.with_name(self.target.name + ".part")
        self._file: BinaryIO | None = None

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Writes one line; bytes that are not UTF-8 become lone surrogates (Python's ``surrogateescape``)."""
        if self.fault is not None:
            return
        record = {"file": self._tape, "line": line, "reason": reason, "text": text.decode("utf-8", "surrogateescape")}
        try:
            self._open_part().write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            self._fail(error)

    def keep(self) -> Path | None:
        """Gives the file its name; None if no line was rejected or the file could not be written."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.target)
        except OSError as error:
            self._fail(error)
            return None
        self._file = None
        return self.target

    def discard(self) -> None:
        """Removes the temporary file, unless ``keep`` has renamed it."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _open_part(self) -> BinaryIO:
        if self._file is None:
            earlier = self.target.read_bytes() if self._appends else b""
            self._file = self._part.open("wb")
            self._file.write(earlier)
        return self._file

    def _fail(self, error: OSError) -> None:
        self.fault = f"rejected lines could not be written to {self.target.name}: {error.strerror or error}"
        self.discard()
