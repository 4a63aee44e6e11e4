"""The manifest of a product's history: where each tape comes from, how it was verified, and which days are missing.

``manifest.json`` lies next to the tapes and states what a later run need not download. The gap ledger of the folder is
made from it: days and trade ids that the venue lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from volspike.errors import UnreadableFile, UsageError
from volspike.history.archives import DAY, days_between
from volspike.history.download import write_durably
from volspike.market import SECOND_NS, Cause, Gap, format_time, parse_time
from volspike.tape.foreign_columns import size_unit_of
from volspike.tape.ledger import gap_line
from volspike.tape.names import LEDGER_NAME, MANIFEST_NAME

FORMAT: Final = 1
BASE_UNIT: Final = "base currency"


class MissingTrades(msgspec.Struct, frozen=True, kw_only=True):
    """Trade ids that a file lacks, between the trades at ``start`` and ``end`` (RFC 3339); ``lost`` is their number."""

    start: str
    end: str
    lost: int
    detail: str


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the venue and the tape made of it; ``first`` and ``end`` are its days, ``end`` exclusive.

    ``tape`` is empty if the file has no row. Ids are -1 where the venue has none, times are empty without a row.
    ``verified`` states how the content was verified.
    """

    tape: str
    first: date
    end: date
    url: str
    bytes: int
    sha256: str
    verified: str
    rows: int
    rejected: int
    first_id: int
    last_id: int
    first_time: str
    last_time: str
    missing: tuple[MissingTrades, ...]
    volspike: str

    def days(self) -> Iterator[date]:
        """The days that it covers."""
        return days_between(self.first, self.end)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one product in a folder, its files by day.

    ``size_unit`` is the unit of the trades' sizes. ``has_consecutive_ids``: missing trades are found by their ids;
    otherwise completeness cannot be verified. ``missing_days`` are those that the venue does not have.
    """

    format: int = FORMAT
    source: str
    product_id: str
    kind: str
    size_unit: str
    has_consecutive_ids: bool
    completeness: str
    terms: str
    files: tuple[FileRecord, ...] = ()
    missing_days: tuple[date, ...] = ()

    def days(self) -> set[date]:
        """The days whose trades are in the folder."""
        return {day for record in self.files for day in record.days()}

    def with_file(self, record: FileRecord) -> Manifest:
        """The manifest with a file, which replaces those of the same days."""
        kept = [each for each in self.files if each.end <= record.first or each.first >= record.end]
        files = tuple(sorted([*kept, record], key=lambda each: each.first))
        missing = tuple(day for day in self.missing_days if not record.first <= day < record.end)
        return msgspec.structs.replace(self, files=files, missing_days=missing)

    def with_missing_day(self, day: date) -> Manifest:
        """The manifest with a day that the venue does not have."""
        return msgspec.structs.replace(self, missing_days=tuple(sorted({*self.missing_days, day})))

    def gaps(self) -> list[Gap]:
        """The losses by start: ids missing within and between files, and days without a file."""
        found = {(gap.start, gap.end): gap for gap in self._gaps()}  # pages of two days state the same loss
        return [found[span] for span in sorted(found)]

    def _gaps(self) -> Iterator[Gap]:
        files = [record for record in self.files if record.rows]
        for record in files:
            for hole in record.missing:
                yield self._gap(parse_time(hole.start), parse_time(hole.end), hole.lost, hole.detail)
        absent = {*self.missing_days, *(day for record in self.files if not record.rows for day in record.days())}
        for left, right in pairwise(files):
            between = list(days_between(left.end, right.first))
            if absent.issuperset(between):
                yield from self._gap_between(left, right, between)
        yield from self._gaps_at_the_edges(files)

    def _gap_between(self, left: FileRecord, right: FileRecord, between: Sequence[date]) -> Iterator[Gap]:
        """The loss between two files of which the days between are missing, if there are any."""
        missing = [day for day in between if day in self.missing_days]
        lost = right.first_id - left.last_id - 1 if self.has_consecutive_ids else -1
        if lost == 0 or (lost < 0 and not missing):
            return
        detail = f"the venue has no file of {_listed(missing)}" if missing else _ids(left.last_id, right.first_id)
        start, end = sorted((parse_time(left.last_time), parse_time(right.first_time)))
        yield self._gap(start, end, max(lost, -1), detail)

    def _gaps_at_the_edges(self, files: Sequence[FileRecord]) -> Iterator[Gap]:
        """The missing days before the first file and after the last one, in one gap per run of days."""
        first = files[0].first if files else date.max
        end = files[-1].end if files else date.max
        for run in _runs([day for day in self.missing_days if day < first or day >= end]):
            start, stop = midnight(run[0]), midnight(run[-1] + DAY)
            if files and run[-1] + DAY == first:
                stop = max(start, parse_time(files[0].first_time))
            if files and run[0] == end:
                start = min(stop, parse_time(files[-1].last_time))
            yield self._gap(start, stop, -1, f"the venue has no file of {_listed(run)}")

    def _gap(self, start: int, end: int, lost: int, detail: str) -> Gap:
        return Gap(start=start, end=end, products=(self.product_id,), cause=Cause.HISTORY, lost=lost, detail=detail)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises:
        UnreadableFile: the file is no manifest, or is from a newer volspike.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error
    except ValueError as error:
        raise UnreadableFile(path, f"no manifest of history ({error}): remove it to download again") from None
    if manifest.format > FORMAT:
        raise UnreadableFile(path, f"manifest format {manifest.format}: install a newer volspike")
    return manifest


def unit_of(product_id: str) -> str:
    """The unit of a product's sizes, as messages state it.

    >>> unit_of("binance-cm:BTC-USD-PERP"), unit_of("binance:BTC-USDT")
    ('contracts', 'base currency')
    """
    return size_unit_of(product_id) or BASE_UNIT


def manifest_of(folder: Path, source: str, product_id: str, kind: str, terms: str, *, consecutive: bool) -> Manifest:
    """The manifest of a folder for the history of one product, or a new one.

    Raises:
        UsageError: the folder holds the history of another product, source or kind of files.
        UnreadableFile: its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return Manifest(
            source=source,
            product_id=product_id,
            kind=kind,
            size_unit=unit_of(product_id),
            has_consecutive_ids=consecutive,
            completeness="verified by trade ids" if consecutive else "not verifiable: the venue's trade ids have gaps",
            terms=terms,
        )
    if (manifest.source, manifest.product_id, manifest.kind) != (source, product_id, kind):
        raise UsageError(
            f"{folder} holds {manifest.kind} of {manifest.product_id} from {manifest.source}, and {kind} would repeat "
            "its trades: use another folder with --out"
        )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest of a folder, then its gap ledger, each atomically."""
    text = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    write_durably(folder / MANIFEST_NAME, text)
    write_ledger(folder, manifest)


def write_ledger(folder: Path, manifest: Manifest) -> None:
    """Replaces the gap ledger of a folder by the gaps of its manifest; without a gap there is none."""
    path, lines = folder / LEDGER_NAME, b"".join(map(gap_line, manifest.gaps()))
    if lines and (not path.exists() or path.read_bytes() != lines):
        write_durably(path, lines)
    elif not lines:
        path.unlink(missing_ok=True)


def missing_between(left_id: int, left_time: int, right_id: int, right_time: int) -> MissingTrades:
    """The trades missing between two trades; times in ns UTC."""
    start, end = sorted((left_time, right_time))
    return MissingTrades(
        start=format_time(start), end=format_time(end), lost=right_id - left_id - 1, detail=_ids(left_id, right_id)
    )


def has_tape(folder: Path, record: FileRecord) -> bool:
    """Whether the tape of a record is in its folder, or is not needed."""
    return not record.tape or (folder / record.tape).exists()


def _ids(left: int, right: int) -> str:
    return f"the venue has no trades {left + 1} to {right - 1}"


def _runs(days: Sequence[date]) -> list[list[date]]:
    """Sorted days, grouped into runs without a break."""
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _listed(days: Sequence[date]) -> str:
    """``2025-10-05``, or first and last of several days."""
    return f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"


def midnight(day: date) -> int:
    """The beginning of a day in ns UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND_NS
