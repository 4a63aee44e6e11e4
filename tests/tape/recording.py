"""Frames as a session hands them on, and a clock that the test moves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.tape.strategies import read_all
from volspike.feeds.events import Frame
from volspike.feeds.venues import decode_any
from volspike.market import SECOND_NS, Tick, Ticks, format_time
from volspike.tape import Recorder

NOON = 1_700_049_600 * SECOND_NS
"""2023-11-15T12:00:00Z."""


class Clock:
    """What the time is, as the test says it."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Heard(NamedTuple):
    """One decoded frame and when it was received (ns UTC): the arguments of ``Recorder.frame``."""

    received: int
    frame: Frame

    @property
    def data(self) -> bytes:
        """The exchange's message for the first tick; on Exchange, the frame itself."""
        return bytes(self.frame.messages[0].text)


def heard(received: int, data: bytes) -> Heard:
    return Heard(received, decode_any(data, received))


def ticker(received: int, price: float = 100.0, product_id: str = "BTC-USD") -> Heard:
    """An Exchange ticker message that came at ``received`` (ns UTC), sent 20 ms before."""
    told = {
        "type": "ticker",
        "sequence": 7,
        "product_id": product_id,
        "price": repr(price),
        "volume_24h": "245532.79269678",
        "low_24h": "99.50",
        "high_24h": "101",
        "best_bid": repr(price - 0.5),
        "best_bid_size": "0.46688654",
        "best_ask": repr(price + 0.5),
        "best_ask_size": "1.5",
        "side": "buy",
        "time": format_time(received - 20_000_000),
        "trade_id": 370843401,
        "last_size": "11.4396987",
    }
    return heard(received, json.dumps(told).encode())


def advanced_trade(received: int, *tickers: dict[str, str], channel: str = "ticker", event: str = "update") -> Heard:
    """An Advanced Trade frame with the given tickers or trades."""
    events = [{"type": event, "trades" if channel == "market_trades" else "tickers": list(tickers)}]
    told = {"channel": channel, "timestamp": format_time(received - 30_000_000), "sequence_num": 3, "events": events}
    return heard(received, json.dumps(told).encode())


def ticks_of(frames: Iterable[Heard]) -> list[Tick]:
    return [tick for told in frames for tick in told.frame.ticks]


def of_product(ticks: Ticks, product_id: str) -> Ticks:
    if product_id not in ticks.products:
        return ticks[:0]
    return ticks[ticks.product == ticks.products.index(product_id)]


def read_back(folder: Path) -> Ticks:
    return read_all(folder, keep_rejected=False)


def record_finished(folder: Path, start: int, count: int = 3, products: Sequence[str] = ("BTC-USD",)) -> None:
    """Records some ticks of a simulated market from ``start`` on, in files that count as finished."""
    with Recorder(folder, clock=Clock(start), simulated=True) as recorder:
        for number in range(count):
            recorder.frame(*ticker(start + number * 1_000_003, 100.0 + number, products[number % len(products)]))
        recorder.flush()
        files = recorder.files
    for path in files:
        os.utime(path, ns=(start, start))


def tape_names(folder: Path) -> list[str]:
    """The names of the tapes in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("ticks_"))
