"""The history of venues that publish trades page by page over REST: one tape per day, with the manifest of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

import volspike
from volspike.feeds.rest import REST_URL, TradePages
from volspike.feeds.trade_pages import KRAKEN_REST_URL
from volspike.history.archives import DAY, product_folder
from volspike.history.backfill import BackfillProgress, BackfillResult, Span, TradeIndex, backfill
from volspike.history.manifest import (
    FileRecord,
    Manifest,
    MissingTrades,
    has_tape,
    manifest_of,
    midnight,
    write_manifest,
)
from volspike.market import MISSING_ID, format_time

KIND: Final = "trades"


@dataclass(frozen=True, slots=True)
class PagedVenue:
    """A venue whose past trades come over REST by trade id; ``path`` is that of a product's trades."""

    name: str
    url: str
    example: str
    path: str
    terms: str


PAGED_VENUES: Final = {
    venue.name: venue
    for venue in (
        PagedVenue(
            name="coinbase",
            url=REST_URL,
            example="BTC-USD",
            path="/products/{product}/trades",
            terms="public data of Coinbase Exchange; terms: https://www.coinbase.com/legal/market_data",
        ),
        PagedVenue(
            name="kraken",
            url=KRAKEN_REST_URL,
            example="BTC-USD",
            path="/0/public/Trades",
            terms="public data of Kraken; terms: https://www.kraken.com/legal",
        ),
    )
}
"""The venues without an archive of files that this program reads; their addresses are those of the REST clients."""


@dataclass(frozen=True, slots=True)
class PagedResult:
    """Result of a run; ``days`` and ``rows`` are new, ``already_there`` days were in the folder before."""

    folder: Path
    manifest: Manifest
    days: int
    rows: int
    duplicates: int
    already_there: int


ShowPages = Callable[[int, int, int, int], None]
"""Gets the number of days done, of all days, of trade ids done in this day, and of all ids in it."""


def missing_days(venue: PagedVenue, product_id: str, days: Sequence[date], out: Path) -> list[date]:
    """The days that the folder of a product lacks.

    Raises:
        UsageError: the folder holds the history of another product or source.
        UnreadableFile: its manifest cannot be read.
    """
    folder = out / product_folder(venue.name, product_id)
    there = {record.first for record in _manifest(venue, product_id, folder).files if has_tape(folder, record)}
    return [day for day in days if day not in there]


def collect_pages(
    pages: TradePages,
    venue: PagedVenue,
    product_id: str,
    days: Sequence[date],
    out: Path,
    show: ShowPages = lambda done, total, ids, all_ids: None,  # noqa: ARG005
) -> PagedResult:
    """Downloads the days that the folder lacks, oldest first; an interrupted day continues at its last page.

    Raises:
        UsageError: the product is unknown, or the folder holds another history.
        DataError: the exchange cannot be reached, refuses a request, or sends invalid data.
    """
    folder = out / product_folder(venue.name, product_id)
    wanted = missing_days(venue, product_id, days, out)
    manifest = _manifest(venue, product_id, folder)
    index = TradeIndex(pages, product_id)
    rows = duplicates = 0
    for number, day in enumerate(wanted):
        span = Span(product_id, midnight(day), midnight(day + DAY))

        def show_ids(done: int, total: int, number: int = number) -> None:
            show(number, len(wanted), done, total)

        result = backfill(pages, span, folder, index=index, show=show_ids)
        record = _record(venue, pages.url, folder, day, result)
        manifest = manifest.with_file(record)
        write_manifest(folder, manifest)
        BackfillProgress(folder / span.tape_name).remove()
        rows += result.trades
        duplicates += result.duplicates
    return PagedResult(folder, manifest, len(wanted), rows, duplicates, len(days) - len(wanted))


def _manifest(venue: PagedVenue, product_id: str, folder: Path) -> Manifest:
    return manifest_of(folder, venue.name, product_id, KIND, venue.terms, consecutive=True)


def _record(venue: PagedVenue, url: str, folder: Path, day: date, result: BackfillResult) -> FileRecord:
    edges = None if result.tape is None else _edges(result.tape)
    holes = tuple(
        MissingTrades(start=format_time(hole.start), end=format_time(hole.end), lost=hole.lost, detail=hole.detail)
        for hole in result.holes
    )
    return FileRecord(
        tape="" if result.tape is None else result.tape.relative_to(folder).as_posix(),
        first=day,
        end=day + DAY,
        url=url + venue.path.format(product=result.span.product_id),
        bytes=0,
        sha256="",
        verified="trade ids",
        rows=result.trades,
        rejected=0,
        first_id=MISSING_ID if edges is None else edges[0],
        last_id=MISSING_ID if edges is None else edges[1],
        first_time="" if edges is None else format_time(edges[2]),
        last_time="" if edges is None else format_time(edges[3]),
        missing=holes,
        volspike=volspike.__version__,
    )


def _edges(tape: Path) -> tuple[int, int, int, int]:
    """First and last trade id and time of a tape that is in the order of its ids."""
    with pq.ParquetFile(tape) as file:
        groups = [file.read_row_group(place, columns=["trade_id", "time"]) for place in (0, file.num_row_groups - 1)]
    ids = [group.column("trade_id") for group in groups]
    times = [group.column("time").cast(pa.int64()) for group in groups]
    return ids[0][0].as_py(), ids[1][-1].as_py(), times[0][0].as_py(), times[1][-1].as_py()
