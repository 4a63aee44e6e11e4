"""``volspike backfill``: past trades, downloaded from the exchange into a tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import instant, require_folder
from volspike.cli.screen import out, warn, working
from volspike.errors import UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.history.backfill import BackfillResult, Span

EXAMPLES = (
    "Example: volspike backfill --pair BTC-USD --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --out data/raw"
)

SHOWN_HOLES = 5


def run(
    pair: Annotated[
        list[str] | None, typer.Option(help="Products (default BTC-USD; with --gaps, all products with gaps).")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="Start (RFC 3339).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, exclusive (RFC 3339).")] = None,
    gaps: Annotated[
        Path | None, typer.Option(help="Download every gap in the ledger of this folder; replaces --from and --to.")
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the trades_….parquet tapes.")] = Path(
        "data/raw"
    ),
    rate: Annotated[
        float | None,
        typer.Option(help="Most requests per second (default: 8 for Coinbase, 2 for Binance, 1 for Kraken)."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="COINBASE_REST_URL",
            show_envvar=False,
            help="REST address of Coinbase (env COINBASE_REST_URL; default https://api.exchange.coinbase.com).",
        ),
    ] = None,
    binance_url: Annotated[
        str | None,
        typer.Option(
            envvar="BINANCE_REST_URL",
            show_envvar=False,
            help="REST address of Binance (env BINANCE_REST_URL; default https://api.binance.com).",
        ),
    ] = None,
    kraken_url: Annotated[
        str | None,
        typer.Option(
            envvar="KRAKEN_REST_URL",
            show_envvar=False,
            help="REST address of Kraken (env KRAKEN_REST_URL; default https://api.kraken.com).",
        ),
    ] = None,
) -> None:
    """Download past trades of Coinbase, Binance (spot) or Kraken into tapes.

    Run it again after an interruption to continue.
    """
    from volspike.feeds.trade_pages import trade_pages
    from volspike.history.backfill import TradeIndex, backfill
    from volspike.market.product import split_product

    require_folder("--out", out_folder)
    spans = _spans(pair or [], start, end, gaps)
    urls = {"coinbase": url, "binance": binance_url, "kraken": kraken_url}
    for venue in dict.fromkeys(split_product(span.product_id)[0] for span in spans):
        with trade_pages(venue, urls.get(venue), rate) as client:
            own = [span for span in spans if split_product(span.product_id)[0] == venue]
            indices = {span.product_id: TradeIndex(client, span.product_id) for span in own}
            for span in own:
                with _fetching(span.product_id) as show:
                    result = backfill(client, span, out_folder, index=indices[span.product_id], show=show)
                _print_result(result)


def _spans(pairs: list[str], start: str | None, end: str | None, gaps: Path | None) -> list[Span]:
    from volspike.history.backfill import Span

    if gaps is not None:
        if start is not None or end is not None:
            raise UsageError("--gaps determines the times: remove --from and --to")
        return _spans_of_gaps(gaps, pairs)
    if start is None or end is None:
        raise UsageError("name the period with --from and --to, or use --gaps for the gaps of a recording")
    begun, ended = instant("--from", start), instant("--to", end)
    from volspike.market.product import canonical_product

    products = dict.fromkeys(map(canonical_product, pairs or ["BTC-USD"]))
    return [Span(product_id, begun, ended) for product_id in products]


def _spans_of_gaps(folder: Path, pairs: list[str]) -> list[Span]:
    """The spans of the gaps in a ledger; gaps that ended seconds ago are left for a later run."""
    import time

    from volspike.feeds.trade_pages import TRADE_CLIENTS
    from volspike.history.backfill import SETTLED_NS, plan_spans
    from volspike.market.product import canonical_product, split_product
    from volspike.tape.ledger import Ledger

    spans = plan_spans(Ledger.read(folder), map(canonical_product, pairs))
    others = dict.fromkeys(span.product_id for span in spans if split_product(span.product_id)[0] not in TRADE_CLIENTS)
    if others:
        warn(f"gaps of {', '.join(others)} stay: the venue has no public trades by trade id")
        spans = [span for span in spans if span.product_id not in others]
    settled = [span for span in spans if span.end <= time.time_ns() - SETTLED_NS]
    if len(settled) < len(spans):
        warn("the newest gap ended seconds ago, and its trades may not be published yet: run this again later")
    if not spans and not others:
        out.print(f"no gap in {folder}: nothing to download")
    return settled


@contextmanager
def _fetching(product_id: str) -> Iterator[Callable[[int, int], None]]:
    """The progress of a download; yields a function that takes the number of trades done and the total."""
    with working(f"downloading {product_id}") as show:
        yield lambda done, total: show(Step(f"{done:,} of {total:,} trades", done / max(1, total)))


def _print_result(result: BackfillResult) -> None:
    from volspike.market import format_time

    span = result.span
    for hole in result.holes[:SHOWN_HOLES]:
        warn(f"{span.product_id}: {hole.detail}, between {format_time(hole.start)} and {format_time(hole.end)}")
    if len(result.holes) > SHOWN_HOLES:
        warn(f"{span.product_id}: {len(result.holes) - SHOWN_HOLES:,} more gaps")
    if result.duplicates:
        warn(f"{span.product_id}: {result.duplicates:,} duplicate trades were dropped")
    when = f"{format_time(span.start)} to {format_time(span.end)}"
    if result.tape is None:
        out.print(f"no trade of {span.product_id} from {when}")
        return
    existing = " (already there)" if result.already_complete else ""
    out.print(f"{result.trades:,} trades of {span.product_id} from {when} → {result.tape}{existing}")
