"""One downloaded file of a venue → one Parquet tape, in constant memory; missing trade ids are found on the way."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeAlias, cast

import numpy as np

from volspike.errors import DataError, UnreadableFile
from volspike.history.archives import ArchiveFile
from volspike.history.manifest import MissingTrades, missing_between
from volspike.market import MISSING_ID, Ticks, format_time
from volspike.tape.importers import TradeFileReport, read_trades
from volspike.tape.parquet import ParquetTape

HISTORY_KEY: Final = b"volspike_history"
"""The key of the metadata of a tape of history: source, address, SHA-256 and unit of sizes, as JSON."""

BLOCK_BYTES: Final = 3 << 20
"""Bytes of text that become one row group: about 40,000 trades, without copying them into groups of equal size."""

MOST_HOLES: Final = 1_000
"""Missing spans of ids kept per file; more are merged with their neighbours."""

_Text: TypeAlias = gzip.GzipFile | zipfile.ZipExtFile


class DamagedDownload(DataError):
    """A downloaded file that is cut off or fails its own check sum: download it again."""


class Conversion(NamedTuple):
    """The content of a tape; ids are -1 and times empty where there are none."""

    rows: int
    rejected: int
    first_id: int
    last_id: int
    first_time: str
    last_time: str
    missing: tuple[MissingTrades, ...]


def convert_file(
    file: ArchiveFile,
    source: Path,
    tape: Path,
    facts: dict[str, str],
    check: Callable[[], None] = lambda: None,
) -> Conversion:
    """Writes the trades of a downloaded file to ``tape``, which exists only if all of them could be read.

    ``facts`` become metadata of the tape. ``check`` runs after each part of the file and raises to stop. A file without
    a row gives no tape.

    Raises:
        DamagedDownload: the file is cut off or fails its own check sum.
        UnreadableFile: its columns are not those of the venue's files, or most rows are damaged.
    """
    report, ids = TradeFileReport(), IdCheck()
    consecutive = file.layout.has_consecutive_ids
    with _opened(source) as stream:
        parts = _checked_parts(stream, file, source, report, check)
        first = next(parts, None)
        if first is None:
            return Conversion(0, report.rejected, MISSING_ID, MISSING_ID, "", "", ())
        with ParquetTape(tape) as written:
            written.metadata = {HISTORY_KEY: json.dumps(facts).encode()}
            for part in chain([first], parts):
                ids.add(part)
                written.write(part)
    return Conversion(
        rows=ids.rows,
        rejected=report.rejected,
        first_id=ids.first_id if consecutive else report.first_id,
        last_id=ids.last_id if consecutive else report.last_id,
        first_time=format_time(ids.first_time),
        last_time=format_time(ids.last_time),
        missing=tuple(ids.holes()) if consecutive else (),
    )


def _checked_parts(
    stream: _Text, file: ArchiveFile, source: Path, report: TradeFileReport, check: Callable[[], None]
) -> Iterator[Ticks]:
    """The ticks of a file; raises at its end if it is cut off."""
    if not stream.peek(1):
        return
    parts = read_trades(
        cast("BinaryIO", stream),
        file.archive.file_format,
        file.product_id,
        path=source,
        report=report,
        block_bytes=BLOCK_BYTES,
    )
    try:
        for part in parts:
            check()
            if len(part):
                yield part
    except UnreadableFile as error:
        if report.fault is not None:
            raise DamagedDownload(f"{source.name}: {report.fault}") from error
        if report.rows == 0 and report.has_header:
            return  # a header alone: a day without a trade
        raise
    if report.fault is not None:
        raise DamagedDownload(f"{source.name}: {report.fault}")


@contextmanager
def _opened(path: Path) -> Iterator[_Text]:
    """The text in a zip archive with one file, or in a gzip file.

    Raises:
        DamagedDownload: it is neither.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [each for each in archive.infolist() if not each.is_dir()]
                if len(members) != 1:
                    raise UnreadableFile(path, f"expected one file in the archive, found {len(members)}")
                with archive.open(members[0]) as stream:
                    yield cast("zipfile.ZipExtFile", stream)
        else:
            with gzip.open(path, "rb") as stream:
                yield stream
    except (zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedDownload(f"{path.name} is cut off or broken ({error})") from error


class IdCheck:
    """Finds missing trade ids in ticks that come in ascending or descending order of their ids.

    Where the order changes, ids are only counted, and the span of the file is one hole if any is missing.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.first_id = self.last_id = MISSING_ID
        self.first_time = self.last_time = 0
        self._distinct = 0
        self._is_ordered = True
        self._direction = 0
        self._edge: tuple[int, int] | None = None
        self._holes: list[MissingTrades] = []

    def add(self, ticks: Ticks) -> None:
        """Takes the next ticks; at least one."""
        times, ids = ticks.time, ticks.trade_id
        low, high = int(times.min()), int(times.max())
        self.first_time = low if self.rows == 0 else min(self.first_time, low)
        self.last_time = high if self.rows == 0 else max(self.last_time, high)
        low, high = int(ids.min()), int(ids.max())
        self.first_id = low if self.rows == 0 else min(self.first_id, low)
        self.last_id = high if self.rows == 0 else max(self.last_id, high)
        self.rows += len(ticks)
        edge_id, edge_time = self._edge or (int(ids[0]), int(times[0]))
        steps = np.diff(ids, prepend=edge_id)
        self._distinct += int(np.count_nonzero(steps)) + (self._edge is None)
        if self._direction == 0 and steps.any():
            self._direction = 1 if steps[np.flatnonzero(steps)[0]] > 0 else -1
        if self._direction < 0:
            steps = -steps
        if steps.min() < 0:
            self._is_ordered = False
        if self._is_ordered:
            for row in np.flatnonzero(steps > 1).tolist():
                before = (int(ids[row - 1]), int(times[row - 1])) if row else (edge_id, edge_time)
                left, right = sorted((before, (int(ids[row]), int(times[row]))))
                self._holes.append(missing_between(*left, *right))
            if len(self._holes) > 4 * MOST_HOLES:
                self._holes = _merged(self._holes)
        self._edge = int(ids[-1]), int(times[-1])

    def holes(self) -> list[MissingTrades]:
        """The missing ids by time."""
        if self._is_ordered:
            holes = self._holes if self._direction >= 0 else self._holes[::-1]
            return _merged(holes) if len(holes) > MOST_HOLES else holes
        if self.last_id - self.first_id + 1 <= self._distinct:
            return []
        hole = missing_between(self.first_id, self.first_time, self.last_id, self.last_time)
        lost = self.last_id - self.first_id + 1 - self._distinct
        detail = f"{lost:,} of the trades {self.first_id} to {self.last_id} are missing; their order is irregular"
        return [MissingTrades(start=hole.start, end=hole.end, lost=lost, detail=detail)]


def _merged(holes: list[MissingTrades]) -> list[MissingTrades]:
    """At most ``MOST_HOLES`` holes that cover all of them; neighbours become one."""
    size = -(-len(holes) // MOST_HOLES)
    merged = []
    for place in range(0, len(holes), size):
        group = holes[place : place + size]
        lost = sum(hole.lost for hole in group)
        merged.append(
            MissingTrades(
                start=min(hole.start for hole in group),
                end=max(hole.end for hole in group),
                lost=lost,
                detail=f"{lost:,} trades are missing in {len(group)} places",
            )
        )
    return merged
