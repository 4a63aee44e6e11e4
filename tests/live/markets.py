"""Small markets for the live pipeline."""

from __future__ import annotations

from volspike.feeds.events import FeedFrame, Frame
from volspike.market import SECOND_NS, Kind, Tick

START = 1_760_000_000 * SECOND_NS


def walk(seconds: int, price: float = 100.0) -> list[Tick]:
    """One tick per second, with a price that changes a little."""
    return [
        Tick(
            time=START + k * SECOND_NS,
            received=START + k * SECOND_NS,
            kind=Kind.TICKER,
            product_id="BTC-USD",
            price=price + 0.01 * (k % 7),
            best_bid=price - 0.01,
            best_ask=price + 0.07,
            bid_size=1.0,
            ask_size=2.0,
        )
        for k in range(seconds)
    ]


def frame(tick: Tick) -> FeedFrame:
    """A frame with one tick."""
    return FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,)))
