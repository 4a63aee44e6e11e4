"""Which spans of trades close the holes of a gap ledger."""

from __future__ import annotations

from collections.abc import Iterable

from volspike.market import SECOND_NS, Gap
from volspike.tape.backfill import Span

MARGIN_NS = SECOND_NS
"""A gap's ends are our clock's, a trade's time the exchange's; the way from there to here took less than this."""


def spans_of(gaps: Iterable[Gap], products: Iterable[str] = ()) -> list[Span]:
    """The spans that cover every gap, in whole seconds, by product and time; those that meet become one.

    ``products`` narrows them down to some; empty, all products of the gaps are meant. Trades at a span's edges may be
    on the tape already: whoever reads both drops what has the same trade id.
    """
    wanted = set(products)
    spans: list[Span] = []
    for product_id, start, end in sorted(
        (product_id, *_seconds(gap))
        for gap in gaps
        for product_id in gap.products
        if not wanted or product_id in wanted
    ):
        last = spans[-1] if spans else None
        if last is not None and last.product_id == product_id and start <= last.end:
            spans[-1] = Span(product_id, last.start, max(last.end, end))
        else:
            spans.append(Span(product_id, start, end))
    return spans


def _seconds(gap: Gap) -> tuple[int, int]:
    """From and to, outward to whole seconds: a tape's name tells no less."""
    start = (gap.start - MARGIN_NS) // SECOND_NS
    end = -(-(gap.end + MARGIN_NS) // SECOND_NS)
    return start * SECOND_NS, end * SECOND_NS
