"""The gap ledger: what did not reach us, one line of NDJSON for each loss, kept beside the tapes of a folder.

Gaps of a tape without a ledger: where nothing of a product was received for long.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from volspike.errors import UnreadableFile
from volspike.feeds.fields import DECODE_ERRORS
from volspike.market import SECOND_NS, Cause, Gap, Ticks, format_time, parse_time
from volspike.tape.names import LEDGER_NAME


class _Line(msgspec.Struct, kw_only=True):
    """A gap as it is written: its times as people read them, to the last nanosecond."""

    start: str
    end: str
    products: tuple[str, ...]
    cause: Cause
    lost: int = -1
    detail: str = ""


_LINE = msgspec.json.Decoder(_Line)


class LedgerContents(NamedTuple):
    """What a ledger holds: its gaps by start, and how many of its lines could not be read."""

    gaps: list[Gap]
    damaged: int


class Ledger:
    """The ledger of one folder, to be added to. Opens the file only while it writes, for gaps are rare.

    What cannot be written stays in memory, and ``fault`` says why, until a later ``flush`` succeeds.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / LEDGER_NAME
        self.fault = ""
        self._pending: list[Gap] = []

    @classmethod
    def read(cls, folder: Path) -> list[Gap]:
        """The gaps of a folder's ledger by start, each once; none where there is no ledger.

        Raises:
            UnreadableFile: it is there and cannot be opened.
        """
        return read_ledger(folder).gaps

    @property
    def pending(self) -> int:
        """How many gaps wait to be written."""
        return len(self._pending)

    def add(self, gap: Gap) -> None:
        """Takes a gap in; ``flush`` writes it."""
        self._pending.append(gap)

    def flush(self) -> bool:
        """Hands what is pending to the operating system, all of it or nothing; False, and ``fault``, if it cannot."""
        if not self._pending:
            return True
        try:
            _append(self.path, b"".join(map(gap_line, self._pending)))
        except OSError as error:
            self.fault = f"{self.path}: {error.strerror or error}"
            return False
        self._pending.clear()
        self.fault = ""
        return True


def read_ledger(folder: Path) -> LedgerContents:
    """The ledger of a folder; a torn or foreign line is counted and costs nothing but itself.

    Raises:
        UnreadableFile: it is there and cannot be opened.
    """
    path = Path(folder) / LEDGER_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return LedgerContents([], 0)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error
    lines = [line for line in text.split(b"\n") if line.strip()]
    gaps = [gap for line in lines if (gap := _gap(line)) is not None]
    return LedgerContents(sorted(set(gaps), key=lambda gap: (gap.start, gap.end)), len(lines) - len(gaps))


def gap_line(gap: Gap) -> bytes:
    """One line of the ledger, its line end included."""
    told = _Line(
        start=format_time(gap.start),
        end=format_time(gap.end),
        products=gap.products,
        cause=gap.cause,
        lost=gap.lost,
        detail=gap.detail,
    )
    return msgspec.json.encode(told) + b"\n"


def _gap(line: bytes) -> Gap | None:
    try:
        told = _LINE.decode(line)
        start, end = parse_time(told.start), parse_time(told.end)
    except DECODE_ERRORS:
        return None
    return Gap(start=start, end=end, products=told.products, cause=told.cause, lost=told.lost, detail=told.detail)


def _append(path: Path, text: bytes) -> None:
    """Writes all of ``text`` at the end of the file, or nothing of it; behind a torn line it begins a new one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        try:
            written = 0
            while written < len(text):
                written += os.write(descriptor, text[written:])
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


LONGEST_SILENCE_S = 10.0
"""What a product may be silent; heartbeats are not on a tape, so a calm market looks like a loss there."""


def silences(parts: Iterable[Ticks], longest_s: float = LONGEST_SILENCE_S) -> list[Gap]:
    """The stretches longer than ``longest_s`` in which no tick of a product was received, by start.

    ``parts`` are ticks in the order of their receipt, in chunks; where the clock steps back no time has passed.
    """
    limit = int(longest_s * SECOND_NS)
    latest: dict[str, int] = {}
    gaps: list[Gap] = []
    for part in parts:
        for code, name in enumerate(part.products):
            received = part.received[part.product == code]
            if len(received) == 0:
                continue
            times = np.maximum.accumulate(np.concatenate([[latest.get(name, received[0])], received]))
            before = np.flatnonzero(np.diff(times) > limit)
            gaps.extend(_silence(name, int(times[row]), int(times[row + 1])) for row in before)
            latest[name] = int(times[-1])
    return sorted(gaps, key=lambda gap: (gap.start, gap.end))


def _silence(product_id: str, start: int, end: int) -> Gap:
    return Gap(
        start=start,
        end=end,
        products=(product_id,),
        cause=Cause.SILENCE,
        detail="derived from the tape",
    )
