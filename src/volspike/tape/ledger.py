"""The gap ledger, and the repair of a folder of tapes after a recorder was killed.

The ledger has one NDJSON line for each known data loss, in the folder of the tapes. For tapes without a ledger,
``silences`` finds the times in which nothing of a product was received. A recorder that starts in a folder repairs
incomplete last lines and reads the time of the last tick, at which the gap before its own recording begins.

Some feeds have nothing by which a loss could be noticed. A recording of one has entries with ``"verifiable": false``:
one without length when it connects, and one over the connection when that ends. A recorder that is stopped or killed
before leaves the first. These entries are no known losses. ``Ledger.read`` leaves them out, so feature rows keep
``is_whole``; ``read_ledger`` returns them apart, so that no report shows such a recording as complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import UnreadableFile
from volspike.feeds.messages import DECODE_ERRORS
from volspike.locks import BINARY, try_lock
from volspike.market import SECOND_NS, Cause, Gap, Ticks, format_time, parse_time
from volspike.tape.lines import decode_line
from volspike.tape.names import LEDGER_NAME, HourName, read_hour_name, read_tape_name, venue_of, with_venue
from volspike.tape.report import RejectedLines, rejected_path

MOST_PENDING = 10_000
"""Gaps kept in memory while the ledger cannot be written."""

_TAIL_BYTES = 1 << 16


class _Line(msgspec.Struct, kw_only=True):
    """A gap as it is written, its times in RFC 3339 with nanoseconds."""

    start: str
    end: str
    products: tuple[str, ...]
    cause: Cause
    lost: int = -1
    detail: str = ""
    verifiable: bool | msgspec.UnsetType = msgspec.UNSET
    """Written only when false, so that earlier versions read the ledger."""


_LINE = msgspec.json.Decoder(_Line)


class LedgerContents(NamedTuple):
    """The gaps of a ledger by start, and the number of its lines that cannot be read.

    ``unverifiable`` are the spans in which no loss could be noticed, by start, those of the same products merged where
    they meet. A span without length begins when a recording connected; its end is unknown.
    """

    gaps: list[Gap]
    damaged: int
    unverifiable: list[Gap]


class Ledger:
    """Appends gaps to the ledger of one folder. The file is open only during a write, because gaps are rare.

    Gaps that cannot be written stay in memory until a later ``flush`` succeeds; ``fault`` states the reason. Beyond
    ``MOST_PENDING`` of them, the newest ones are merged. One thread may add gaps while another one flushes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / LEDGER_NAME
        self.fault = ""
        self._pending: list[Gap] = []
        self._lock = Lock()

    @classmethod
    def read(cls, folder: Path) -> list[Gap]:
        """The known losses of a folder's ledger by start, without duplicates; none if there is no ledger.

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
        with self._lock:
            if len(self._pending) >= MOST_PENDING:
                gap = _merge(self._pending.pop(), gap)
            self._pending.append(gap)

    def flush(self) -> bool:
        """Writes all pending gaps or none; False if the file cannot be written, see ``fault``."""
        with self._lock:
            gaps, self._pending = self._pending, []
        if not gaps:
            return True
        try:
            _append(self.path, b"".join(map(gap_line, gaps)))
        except OSError as error:
            self.fault = f"{self.path}: {error.strerror or error}"
            with self._lock:
                self._pending = gaps + self._pending
            return False
        self.fault = ""
        return True


def _merge(first: Gap, second: Gap) -> Gap:
    """One gap over both, so that a ledger that cannot be written for days takes no more memory."""
    return Gap(
        start=min(first.start, second.start),
        end=max(first.end, second.end),
        products=tuple(sorted({*first.products, *second.products})),
        cause=second.cause,
        lost=-1 if min(first.lost, second.lost) < 0 else first.lost + second.lost,
        detail="several gaps, merged while the ledger could not be written",
        verifiable=first.verifiable or second.verifiable,
    )


def ledgers_of(tapes: Iterable[Path]) -> LedgerContents:
    """The ledgers of the folders of tapes, with the products named as a reading of these tapes names them.

    A gap of an unlabelled product (``BTC-USD`` in the folder ``gemini``) is one of ``gemini:BTC-USD``; if the names of
    the unlabelled tapes in a folder state several venues, it is one of each.

    Raises:
        UnreadableFile: a ledger exists and cannot be opened.
    """
    venues: dict[Path, set[str | None]] = {}
    for tape in tapes:
        name = read_tape_name(tape)
        is_labelled = name is not None and ":" in name.product_id
        venues.setdefault(tape.parent, set()).update(() if is_labelled else {venue_of(tape)})
    gaps: list[Gap] = []
    damaged = 0
    unverifiable: list[Gap] = []
    for folder in sorted(venues):
        contents = read_ledger(folder)
        places = venues[folder] or {None}
        gaps += [_named(gap, places) for gap in contents.gaps]
        unverifiable += [_named(gap, places) for gap in contents.unverifiable]
        damaged += contents.damaged
    return LedgerContents(gaps, damaged, unverifiable)


def _named(gap: Gap, venues: Iterable[str | None]) -> Gap:
    """The gap with the products that its names mean at these venues."""
    names = dict.fromkeys(name for venue in venues for name in with_venue(gap.products, venue))
    products = tuple(sorted(names)) if len(names) > len(gap.products) else tuple(names)
    return gap if products == gap.products else msgspec.structs.replace(gap, products=products)


def read_ledger(folder: Path) -> LedgerContents:
    """The ledger of a folder; lines that cannot be read are counted and skipped.

    Raises:
        UnreadableFile: the ledger exists and cannot be opened.
    """
    path = Path(folder) / LEDGER_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return LedgerContents([], 0, [])
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error
    lines = [line for line in text.split(b"\n") if line.strip()]
    entries = [gap for line in lines if (gap := _gap(line)) is not None]
    ordered = sorted(set(entries), key=lambda gap: (gap.start, gap.end))
    return LedgerContents(
        gaps=[gap for gap in ordered if gap.verifiable],
        damaged=len(lines) - len(entries),
        unverifiable=_join(gap for gap in ordered if not gap.verifiable),
    )


def _join(spans: Iterable[Gap]) -> list[Gap]:
    """The spans, which come by start, with those of the same products merged where they meet."""
    joined: list[Gap] = []
    latest: dict[tuple[str, ...], int] = {}
    for span in spans:
        at = latest.get(span.products)
        if at is None or span.start > joined[at].end:
            latest[span.products] = len(joined)
            joined.append(span)
        elif span.end > joined[at].end:
            joined[at] = msgspec.structs.replace(joined[at], end=span.end)
    return joined


def gap_line(gap: Gap) -> bytes:
    """One line of the ledger, its line end included."""
    line = _Line(
        start=format_time(gap.start),
        end=format_time(gap.end),
        products=gap.products,
        cause=gap.cause,
        lost=gap.lost,
        detail=gap.detail,
        verifiable=msgspec.UNSET if gap.verifiable else False,
    )
    return msgspec.json.encode(line) + b"\n"


def _gap(text: bytes) -> Gap | None:
    try:
        line = _LINE.decode(text)
        start, end = parse_time(line.start), parse_time(line.end)
    except DECODE_ERRORS:
        return None
    return Gap(
        start=start,
        end=end,
        products=line.products,
        cause=line.cause,
        lost=line.lost,
        detail=line.detail,
        verifiable=line.verifiable is not False,
    )


def _append(path: Path, text: bytes) -> None:
    """Appends all of ``text`` or nothing; starts a new line if the file ends in an incomplete one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and _last_byte(descriptor, size) != b"\n":
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


def _last_byte(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1)


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


def missing_seconds(gaps: Iterable[Gap], since: int = -(2**63)) -> float:
    """Seconds since ``since`` (ns UTC) in which data was missing, each counted once."""
    covered, reached = 0, since
    for gap in sorted(gaps, key=lambda gap: gap.start):
        covered += max(0, gap.end - max(gap.start, reached))
        reached = max(reached, gap.end)
    return covered / SECOND_NS


def repair_folder(folder: Path) -> list[Path]:
    """Removes incomplete last lines from the recorded tapes of a folder; returns the tapes that changed.

    A line that lacks only its line end gets one; the rest of any other is moved to ``<tape>.rejected.ndjson``. Empty
    files are removed. Tapes that another process is writing or that cannot be changed stay as they are; readers cope.

    Raises:
        OSError: the folder cannot be listed.
    """
    tapes = sorted(path for path in folder.iterdir() if path.suffix == ".ndjson" and read_hour_name(path) is not None)
    return [path for path in tapes if _repair(path)]


def _repair(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | BINARY)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if (size and _last_byte(descriptor, size) == b"\n") or not try_lock(descriptor):
            return False
        if size == 0:  # killed before its first line
            path.unlink()
            return False
        return _repair_last_line(path, descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _repair_last_line(path: Path, descriptor: int) -> bool:
    text = path.read_bytes()
    complete = text.rfind(b"\n") + 1
    last_line = text[complete:]
    if decode_line(last_line) is not None:
        os.lseek(descriptor, len(text), os.SEEK_SET)
        os.write(descriptor, b"\n")
        return True
    rejected = RejectedLines(path, appends=rejected_path(path).exists())
    rejected.add(text.count(b"\n") + 1, "the recording ended in this line", last_line)
    if rejected.keep() is None:
        return False
    os.ftruncate(descriptor, complete)
    return True


def last_received(folder: Path) -> dict[str, int]:
    """When the last tick of each symbol (``BTCUSD``) in a folder's recorded tapes was received, ns UTC.

    Raises:
        OSError: the folder cannot be listed.
    """
    tapes_of_symbol: dict[str, list[tuple[HourName, Path]]] = {}
    for path in folder.iterdir():
        name = read_hour_name(path)
        if name is not None:
            tapes_of_symbol.setdefault(name.symbol, []).append((name, path))
    latest = {symbol: _latest(sorted(tapes, reverse=True)) for symbol, tapes in tapes_of_symbol.items()}
    return {symbol: time for symbol, time in latest.items() if time is not None}


def _latest(tapes: Iterable[tuple[HourName, Path]]) -> int | None:
    """The latest time in the last hour that has one; ``tapes`` come newest first."""
    latest: int | None = None
    hour = ""
    for name, path in tapes:
        if latest is not None and name.hour != hour:
            break
        time = _last_in_parquet(path) if path.suffix == ".parquet" else _last_in_ndjson(path)
        if time is not None:
            latest, hour = time if latest is None else max(time, latest), name.hour
    return latest


def _last_in_ndjson(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for text in reversed(lines):
        line = decode_line(text)
        if line is not None:
            with suppress(ValueError):
                return parse_time(line.timestamp)
    return None


def _last_in_parquet(path: Path) -> int | None:
    try:
        with pq.ParquetFile(path) as file:
            if file.num_row_groups == 0:
                return None
            column = file.read_row_group(file.num_row_groups - 1, columns=["received"]).column(0)
            return int(column.cast(pa.int64())[-1].as_py()) if len(column) else None
    except (pa.ArrowException, OSError, KeyError):
        return None
