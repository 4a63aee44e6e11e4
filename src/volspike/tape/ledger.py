"""The gap ledger: one NDJSON line for each known data loss, in the folder of the tapes.

For tapes without a ledger, ``silences`` finds the times in which nothing of a product was received.
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
    """A gap as it is written, its times in RFC 3339 with nanoseconds."""

    start: str
    end: str
    products: tuple[str, ...]
    cause: Cause
    lost: int = -1
    detail: str = ""


_LINE = msgspec.json.Decoder(_Line)


class LedgerContents(NamedTuple):
    """The gaps of a ledger by start, and the number of its lines that cannot be read."""

    gaps: list[Gap]
    damaged: int


class Ledger:
    """Appends gaps to the ledger of one folder. The file is open only during a write, because gaps are rare.

    Gaps that cannot be written stay in memory until a later ``flush`` succeeds; ``fault`` states the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / LEDGER_NAME
        self.fault = ""
        self._pending: list[Gap] = []

    @classmethod
    def read(cls, folder: Path) -> list[Gap]:
        """The gaps of a folder's ledger by start, without duplicates; none if there is no ledger.

        Raises:
            UnreadableFile: the ledger exists and cannot be opened.
        """
        return read_ledger(folder).gaps

    @property
    def pending(self) -> int:
        """The number of gaps that are not written yet."""
        return len(self._pending)

    def add(self, gap: Gap) -> None:
        """Adds a gap, which ``flush`` writes."""
        self._pending.append(gap)

    def flush(self) -> bool:
        """Writes all pending gaps or none; False if the file cannot be written, see ``fault``."""
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
    """The ledger of a folder; lines that cannot be read are counted and skipped.

    Raises:
        UnreadableFile: the ledger exists and cannot be opened.
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
    line = _Line(
        start=format_time(gap.start),
        end=format_time(gap.end),
        products=gap.products,
        cause=gap.cause,
        lost=gap.lost,
        detail=gap.detail,
    )
    return msgspec.json.encode(line) + b"\n"


def _gap(text: bytes) -> Gap | None:
    try:
        line = _LINE.decode(text)
        start, end = parse_time(line.start), parse_time(line.end)
    except DECODE_ERRORS:
        return None
    return Gap(start=start, end=end, products=line.products, cause=line.cause, lost=line.lost, detail=line.detail)


def _append(path: Path, text: bytes) -> None:
    """Appends all of ``text`` or nothing; starts a new line if the file ends in an incomplete one."""
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
"""The longest silence that is no gap; tapes have no heartbeats, so a calm market looks like a loss."""


def silences(parts: Iterable[Ticks], longest_s: float = LONGEST_SILENCE_S) -> list[Gap]:
    """The times longer than ``longest_s`` in which no tick of a product was received, by start.

    ``parts`` are chunks of ticks in the order in which they were received; a clock that steps back counts as no time.
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
