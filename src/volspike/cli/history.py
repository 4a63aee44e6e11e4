"""``volspike history``: months of public trades, downloaded from the venue's archive into tapes."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import check_writable, require_folder
from volspike.cli.screen import out, warn, working
from volspike.errors import UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.history.archives import Archive
    from volspike.history.collection import HistoryProgress, HistoryRequest, HistoryResult
    from volspike.history.manifest import Manifest
    from volspike.history.paged import PagedResult, PagedVenue

EXAMPLES = "Example: volspike history binance BTC-USDT --days 90"

SHOWN_GAPS = 5
MOST_PARALLEL = 32


def run(
    source: Annotated[
        str,
        typer.Argument(
            help="binance, binance-um, binance-cm, bybit, bybit-linear, bybit-inverse, okx, tardis, coinbase or kraken."
        ),
    ],
    product: Annotated[
        str, typer.Argument(help="The product, such as BTC-USDT; of Tardis with its venue: binance:BTC-USDT.")
    ],
    start: Annotated[str | None, typer.Option("--from", help="First day (UTC), such as 2026-08-01.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Day after the last one (default: today).")] = None,
    days: Annotated[int | None, typer.Option(help="The last so many complete days; replaces --from.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Files of the venue: aggTrades (default) or trades of Binance; trades (default) or aggTrades of OKX; "
            "trades (default) or quotes of Tardis."
        ),
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder for the tapes, in a folder per source and product.")
    ] = Path("data/history"),
    parallel: Annotated[int, typer.Option(help="Downloads at the same time.")] = 4,
    rate: Annotated[
        float | None,
        typer.Option(help="Most requests per second to coinbase or kraken (default: within the venue's limit)."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="HISTORY_BASE_URL",
            show_envvar=False,
            help="Address of a mirror with the same paths (env HISTORY_BASE_URL; default: the venue).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be downloaded, with its size; download nothing.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the downloaded files in the folder .downloads next to the tapes.")
    ] = False,
) -> None:
    """Download months of public trades into tapes; run it again to continue or to add the days since.

    A day that is already there is not downloaded again. Days and trades that the venue lacks become gaps in the
    ledger.
    """
    from volspike.history.archives import ARCHIVES, source_product
    from volspike.history.paged import PAGED_VENUES

    known: dict[str, Archive | PagedVenue] = {**ARCHIVES, **PAGED_VENUES}
    if source not in known:
        raise UsageError(f"no source {source!r}; available: {', '.join(known)}")
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(f"--parallel must be from 1 to {MOST_PARALLEL}, got {parallel}")
    product_id = source_product(source, product, known[source].example)
    wanted = _days(start, end, days)
    require_folder("--out", out_folder)
    if source in PAGED_VENUES:
        if kind not in {None, "trades"}:
            raise UsageError(f"{source} has trades only: remove --kind {kind}")
        _run_pages(PAGED_VENUES[source], product_id, wanted, out_folder, base_url, rate, dry_run=dry_run)
        return
    if rate is not None:
        raise UsageError(f"--rate is for coinbase and kraken; limit the downloads of {source} with --parallel")

    from volspike.history.collection import HistoryRequest, check_request

    archive = ARCHIVES[source]
    request = HistoryRequest(
        archive=archive,
        product_id=product_id,
        kind=kind or archive.kinds[0],
        days=wanted,
        out=out_folder.expanduser(),
        url=(base_url or archive.url).rstrip("/"),
        key=os.environ.get(archive.key_variable) or None if archive.key_variable else None,
        parallel=parallel,
        keep=keep,
    )
    check_request(request)
    if dry_run:
        _print_plan(request)
    else:
        check_writable(out_folder, "--out")
        _run_files(request)


def _days(start: str | None, end: str | None, days: int | None) -> list[date]:
    """The requested days, all of them over."""
    from datetime import UTC, datetime, timedelta

    from volspike.history.archives import days_between

    today = datetime.now(UTC).date()
    if days is not None and start is not None:
        raise UsageError("--days and --from exclude each other: name one of them")
    if days is None and start is None:
        raise UsageError("name the period with --days 90, or with --from and --to")
    last = today if end is None else _day("--to", end)
    if last > today:
        raise UsageError(f"--to {last} is in the future or not over: the last complete day ends at {today}")
    if days is not None:
        if not 1 <= days <= 10_000:
            raise UsageError(f"--days must be from 1 to 10000, got {days}")
        first = last - timedelta(days=days)
    else:
        first = _day("--from", start or "")
    if first >= last:
        raise UsageError(f"the period must begin before it ends: --from {first} --to {last} (exclusive)")
    if first.year < 2009:
        raise UsageError(f"--from {first}: no venue has trades before 2009")
    return list(days_between(first, last))


def _day(flag: str, text: str) -> date:
    try:
        return date.fromisoformat(text.strip().removesuffix("T00:00:00Z"))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is no day: history comes by the day (UTC), such as 2026-08-01") from None


def _print_plan(request: HistoryRequest) -> None:
    from volspike.history.collection import plan_download

    with working(f"requesting the sizes of {request.product_id}"):
        planned = plan_download(request)
    known = [each.bytes for each in planned if each.bytes is not None and each.bytes >= 0]
    for each in planned:
        size = "not there" if each.bytes is None else "size unknown" if each.bytes < 0 else _megabytes(each.bytes)
        out.print(f"{request.url}{each.file.path}  {size}")
    there = sum(each.bytes is not None for each in planned)
    out.print(f"{there} files, {_megabytes(sum(known))} would be downloaded to {request.folder}")


def _run_files(request: HistoryRequest) -> None:
    from volspike.history.collection import collect_history

    with working(f"downloading {request.product_id}") as show:

        def show_progress(progress: HistoryProgress) -> None:
            text = (
                f"{progress.files_done} of {progress.files} files, {_megabytes(progress.bytes_done)}, "
                f"{progress.bytes_per_second() / 1e6:.1f} MB/s, {progress.rows:,} trades"
            )
            show(Step(text, progress.share()))

        result = collect_history(request, show_progress)
    _print_result(request, result)


def _print_result(request: HistoryRequest, result: HistoryResult) -> None:
    total = len(request.days)
    if result.files:
        out.print(
            f"{result.files} files, {_megabytes(result.bytes)}: {result.rows:,} {_rows(request.kind)} of "
            f"{request.product_id} → {result.folder}"
        )
    else:
        text = f"nothing to download: {result.already_there} of {total} days of {request.product_id} are in"
        out.print(f"{text} {result.folder}")
    if result.rejected:
        warn(f"{result.rejected:,} damaged rows were dropped")
    if result.unpublished:
        out.print(
            f"not yet published: {_listed(result.unpublished)}; run this again later, which downloads only what is new"
        )
    _print_manifest(result.manifest)


def _rows(kind: str) -> str:
    return "quotes" if kind == "quotes" else "trades"


def _print_manifest(manifest: Manifest) -> None:
    """Prints the content of the folder: completeness, gaps, unit of sizes, and terms."""
    from volspike.history.manifest import BASE_UNIT
    from volspike.market import format_time

    if not manifest.files:
        return
    gaps = manifest.gaps()
    for gap in gaps[:SHOWN_GAPS]:
        warn(f"{gap.detail}, between {format_time(gap.start)} and {format_time(gap.end)}")
    if len(gaps) > SHOWN_GAPS:
        warn(f"{len(gaps) - SHOWN_GAPS:,} more gaps; `volspike gaps` lists them")
    rows = sum(record.rows for record in manifest.files)
    first, last = manifest.files[0].first, max(record.end for record in manifest.files)
    out.print(
        f"in the folder: {rows:,} {_rows(manifest.kind)} from {first} to {last}, {len(gaps):,} gaps; "
        f"completeness: {manifest.completeness}"
    )
    if manifest.size_unit != BASE_UNIT:
        out.print(f"sizes are in {manifest.size_unit}, not in the base currency; the manifest and the tapes state it")
    out.print(manifest.terms)


def _run_pages(
    venue: PagedVenue,
    product_id: str,
    days: list[date],
    folder: Path,
    url: str | None,
    rate: float | None,
    *,
    dry_run: bool,
) -> None:
    from volspike.feeds.trade_pages import trade_pages
    from volspike.history.paged import collect_pages, missing_days

    if url is None and venue.name == "coinbase":
        url = os.environ.get("COINBASE_REST_URL")
    with trade_pages(venue.name, url, rate) as client:
        if dry_run:
            lacking = missing_days(venue, product_id, days, folder)
            out.print(
                f"{len(lacking)} days of {product_id} would be downloaded from {client.url} in pages of trades; "
                "their size is not known in advance"
            )
            return
        check_writable(folder, "--out")
        with working(f"downloading {product_id}") as show:

            def show_pages(done: int, total: int, ids: int, all_ids: int) -> None:
                share = (done + ids / max(1, all_ids)) / max(1, total)
                show(Step(f"{done} of {total} days, {ids:,} of {all_ids:,} trades of the day", share))

            result = collect_pages(client, venue, product_id, days, folder.expanduser(), show_pages)
    _print_pages(product_id, result)


def _print_pages(product_id: str, result: PagedResult) -> None:
    if result.days:
        out.print(f"{result.days} days: {result.rows:,} trades of {product_id} → {result.folder}")
    else:
        out.print(f"nothing to download: {result.already_there} days of {product_id} are in {result.folder}")
    if result.duplicates:
        warn(f"{result.duplicates:,} duplicate trades were dropped")
    _print_manifest(result.manifest)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _listed(days: tuple[date, ...]) -> str:
    shown = ", ".join(map(str, days[:3]))
    return shown if len(days) <= 3 else f"{shown} and {len(days) - 3} more days"
