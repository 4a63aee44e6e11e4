"""Small markets for the live pipeline."""

from __future__ import annotations

from volspike.feeds.events import FeedFrame, Frame
from volspike.market import SECOND_NS, Kind, Tick

START = 1_760_000_000 * SECOND_NS


def walk(seconds: int, price: float = 100.0) -> list[Tick]:
    """A market that moves a little each second."""
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
    """A frame that tells one tick."""
    return FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,)))
