"""A small seeded market for tests, demonstrations and machines without a recording.

What it is not: there is no order book and no matching, nobody trades in it, and no real market moves so.
Volatility clusters in it, products share a factor, and books thin before many (not all) bursts because that is
written into it. A result on it proves that the plumbing works and says nothing about trading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from volspike.feeds.simulated_mood import CHUNK_S, Mood, Moods, Seconds
from volspike.market import SECOND_NS, UNTOLD_ID, Kind, Side, Ticks

Nanoseconds = NDArray[np.int64]

LATENCY_NS = 25_000_000

_OPENING_PRICES = {"BTC-USD": 90_000.0, "ETH-USD": 3_000.0}
_OPENING_PRICE = 1_000.0
_VOLATILITY = 2.5e-5
_MOST_LOG_VOLATILITY = 3.0
_MARKET_SHARE = 0.6
_JUMP = 3.0
_TICKS_PER_S = 3.5
_MOST_TICKS_PER_S = 60.0
_SPREAD = 2e-6


def simulate_market(products: Sequence[str], seconds: int, seed: int, start: int) -> Iterator[Ticks]:
    """Ticker ticks of ``products`` over ``seconds`` from ``start`` (ns UTC), in chunks of up to ten minutes.

    They tell what Advanced Trade's ``ticker`` tells (profile ``ticker``): prices and quotes on a grid of 0.01 with
    sizes, no trades. Time never goes back, the bid stands below the ask, ``received`` is 25 ms after ``time``.
    The same seed (0 or more) gives the same ticks; a longer run begins with the ticks of a shorter one; a product
    moves alike whichever others are there. Memory does not grow with ``seconds``.
    """
    names = tuple(products)
    market = Moods(onsets_per_s=1 / 900)
    books = [_Product(name) for name in names]
    end = start + seconds * SECOND_NS
    for chunk in range(-(-seconds // CHUNK_S)):
        rng = np.random.default_rng([seed, chunk])
        mood, factor = market.next(rng), rng.normal(size=CHUNK_S)
        chunk_start = start + chunk * CHUNK_S * SECOND_NS
        parts = [
            book.next(np.random.default_rng([seed, chunk, crc32(book.name.encode())]), mood, factor, chunk_start)
            for book in books
        ]
        ticks = Ticks.join(parts)
        ticks = ticks[np.argsort(ticks.time, kind="stable")]
        yield ticks[ticks.time < end]


class _Product:
    """One product: its own mood and where its price stands at the end of the last chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._moods = Moods(onsets_per_s=1 / 450)
        self._log_price = float(np.log(_OPENING_PRICES.get(name, _OPENING_PRICE)))

    def next(self, rng: np.random.Generator, market: Mood, factor: Seconds, start: int) -> Ticks:
        """The ticks of the next chunk, which begins at ``start``."""
        mood = market + self._moods.next(rng)
        volatility = _VOLATILITY * np.exp(np.minimum(mood.log_volatility, _MOST_LOG_VOLATILITY))
        own = rng.normal(size=CHUNK_S)
        mixed = np.sqrt(_MARKET_SHARE) * factor + np.sqrt(1 - _MARKET_SHARE) * own
        jumps = _VOLATILITY * _JUMP * mood.bursts * rng.normal(size=CHUNK_S)
        path = self._log_price + np.concatenate([[0.0], np.cumsum(volatility * mixed + jumps)])
        self._log_price = float(path[-1])
        clock = _clock(rng, mood)
        return self._quoted(rng, start, clock, _mid(rng, clock, path, volatility), mood)

    def _quoted(self, rng: np.random.Generator, start: int, clock: Nanoseconds, mid: Seconds, mood: Mood) -> Ticks:
        second = clock // SECOND_NS
        bid, ask = _touch(rng, mid, mood, second)
        bid_size, ask_size = _sizes(rng, mood, second)
        n = len(clock)
        time = start + clock
        return Ticks(
            products=(self.name,),
            time=time,
            received=time + LATENCY_NS,
            kind=np.full(n, Kind.TICKER, np.int8),
            product=np.zeros(n, np.int32),
            price=np.where(rng.random(n) < 0.5, bid, ask),
            best_bid=bid,
            best_ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last_size=np.full(n, np.nan),
            side=np.full(n, Side.UNTOLD, np.int8),
            trade_id=np.full(n, UNTOLD_ID, np.int64),
            sequence=np.full(n, UNTOLD_ID, np.int64),
        )


def _clock(rng: np.random.Generator, mood: Mood) -> Nanoseconds:
    """When ticks come, in nanoseconds from the start of the chunk, ascending; more of them in a restless market."""
    rate = _TICKS_PER_S * np.exp(0.3 * mood.stress + 0.4 * mood.log_volatility)
    counts = rng.poisson(np.minimum(rate, _MOST_TICKS_PER_S))
    second = np.repeat(np.arange(CHUNK_S) * SECOND_NS, counts)
    return np.sort(second + rng.integers(0, SECOND_NS, len(second)))


def _mid(rng: np.random.Generator, clock: Nanoseconds, path: Seconds, volatility: Seconds) -> Seconds:
    """The mid price at each tick: the path of the whole seconds, and between them noise that ends in it."""
    second = clock // SECOND_NS
    fraction = clock % SECOND_NS / SECOND_NS
    noise = volatility[second] * np.sqrt(fraction * (1 - fraction)) * rng.normal(size=len(clock))
    return np.asarray(np.exp(path[second] * (1 - fraction) + path[second + 1] * fraction + noise))


def _touch(rng: np.random.Generator, mid: Seconds, mood: Mood, second: NDArray[np.int64]) -> tuple[Seconds, Seconds]:
    """Best bid and ask around ``mid``, in whole cents and at least one apart; wider under stress."""
    width = _SPREAD * np.exp(0.7 * mood.stress + 0.4 * mood.log_volatility)[second]
    spread = 1 + np.floor(100 * mid * width * rng.exponential(size=len(mid)))
    bid = np.maximum(np.floor(100 * mid - spread / 2), 1)
    return bid / 100, (bid + spread) / 100


def _sizes(rng: np.random.Generator, mood: Mood, second: NDArray[np.int64]) -> tuple[Seconds, Seconds]:
    """Resting sizes at the touch, to eight digits; thinner under stress, on the side that it leans on most."""
    depth = (-2.0 - 0.5 * mood.stress)[second]
    lean = (0.6 * mood.lean)[second]
    bid, ask = (np.exp(depth + tilt + 0.9 * rng.normal(size=len(second))) for tilt in (-lean, lean))
    return np.maximum(np.round(bid, 8), 1e-8), np.maximum(np.round(ask, 8), 1e-8)
