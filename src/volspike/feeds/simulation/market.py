"""The simulated market: seeded quotes and trades for tests, demonstrations and machines without a recording.

``simulate_market`` draws quotes: a volatility regime per second, a price path with jumps, and a book that thins under
stress. ``simulate_trades`` adds the trades of a Hawkes process. ``Schedule`` orders them in time for the exchange.

There is no order book, no matching and no trader. Volatility clusters, products share a factor, and books thin before
many but not all bursts, because these rules say so. A result on this market shows that the software works and says
nothing about trading.

Hawkes processes are drawn by clusters (Hawkes and Oakes, "A cluster process representation of a self-exciting process",
J. Appl. Prob. 11, 1974): every event has a Poisson number of children at exponential delays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from volspike.market import MISSING_ID, SECOND_NS, Kind, Side, Tick, Ticks

Seconds = NDArray[np.float64]
Nanoseconds = NDArray[np.int64]

CHUNK_S = 600
LATENCY_NS = 25_000_000
QUARTER_NS = SECOND_NS // 4

# Prices and quotes
_OPENING_PRICES = {"BTC-USD": 90_000.0, "ETH-USD": 3_000.0}
_OPENING_PRICE = 1_000.0
_VOLATILITY = 2.5e-5
_MOST_LOG_VOLATILITY = 3.0
_MARKET_SHARE = 0.6
_JUMP = 3.0
_TICKS_PER_S = 3.5
_MOST_TICKS_PER_S = 60.0
_SPREAD = 2e-6

# Regimes
_ANNOUNCED_SHARE = 0.65
_UNANNOUNCED_PER_S = 1 / 2400
_CHILDREN = 0.45
_CHILD_DELAY_S = 25.0
_STRESS_MEMORY_S = 30.0
_BURST_MEMORY_S = 35.0
_CALM_MEMORY_S = 400.0
_CALM_SPREAD = 0.35

# Trades
_CHILDREN_PER_TRADE = 0.4
_CHILD_DELAY_NS = 300_000_000
_SAME_SIDE = 0.85
_NOTIONAL = 300.0
_MOST_MESSAGES_BETWEEN = 12
_FIRST_TRADE_ID = 1_000_000
_FIRST_SEQUENCE = 10_000_000
_MICROSECOND_NS = 1000
_QUOTES = ("best_bid", "best_ask", "bid_size", "ask_size")


def simulate_market(products: Sequence[str], seconds: int, seed: int, start: int) -> Iterator[Ticks]:
    """Ticker ticks of ``products`` over ``seconds`` from ``start`` (ns UTC), in chunks of up to ten minutes.

    They have the fields of Advanced Trade's ``ticker`` (profile ``ticker``): prices and quotes on a grid of 0.01 with
    sizes, no trades. Time never goes back, the bid is below the ask, ``received`` is 25 ms after ``time``.
    The same seed (0 or more) gives the same ticks; a longer run begins with the ticks of a shorter one; a product
    does not depend on the other products. Memory does not grow with ``seconds``.
    """
    names = tuple(products)
    market = RegimeGenerator(onsets_per_s=1 / 900)
    books = [_Product(name) for name in names]
    end = start + seconds * SECOND_NS
    for chunk in range(-(-seconds // CHUNK_S)):
        rng = np.random.default_rng([seed, chunk])
        regime, factor = market.next(rng), rng.normal(size=CHUNK_S)
        chunk_start = start + chunk * CHUNK_S * SECOND_NS
        parts = [
            book.next(np.random.default_rng([seed, chunk, crc32(book.name.encode())]), regime, factor, chunk_start)
            for book in books
        ]
        ticks = Ticks.join(parts)
        ticks = ticks[np.argsort(ticks.time, kind="stable")]
        yield ticks[ticks.time < end]


def simulate_trades(products: Sequence[str], seconds: int, seed: int, start: int) -> Iterator[Ticks]:
    """The market of ``simulate_market`` with trades, in chunks of up to ten minutes.

    Each tick is one trade with the best quotes after it, as in Exchange's ``ticker``: ``price`` is the best quote on
    the taker's ``side``, ``trade_id`` counts by one in each product, ``sequence`` rises (messages of an order book lie
    between). A trade triggers further trades, mostly on its own side, and moves no price. Times are in microseconds.
    Repeatable, extensible and bounded in memory like ``simulate_market``, with chunks of the same length.
    """
    flows = [_TradeFlow(name) for name in products]
    chunks = -(-seconds // CHUNK_S)
    end = start + seconds * SECOND_NS
    for chunk, quoted in enumerate(simulate_market(products, chunks * CHUNK_S, seed, start)):
        chunk_end = start + (chunk + 1) * CHUNK_S * SECOND_NS
        parts = [
            flow.next(
                np.random.default_rng([seed, chunk, crc32(flow.name.encode()), 1]),
                quoted[quoted.product == code],
                chunk_end,
            )
            for code, flow in enumerate(flows)
        ]
        ticks = Ticks.join(parts)
        ticks = ticks[np.argsort(ticks.time, kind="stable")]
        yield ticks[ticks.time < end]


class Moment(NamedTuple):
    """A trade, or the end of a quarter of a second; ``is_second`` if a full second ends."""

    time: int
    trade: Tick | None = None
    is_second: bool = False


class Schedule:
    """Merges trades, which come in chunks, with the ends of the quarters of UTC seconds, in the order of time."""

    def __init__(self, start: int) -> None:
        self._next = start // QUARTER_NS * QUARTER_NS + QUARTER_NS

    def moments(self, ticks: Ticks) -> Iterator[Moment]:
        """Everything up to the last trade of a chunk."""
        for trade in iterate_ticks(ticks):
            yield from self.until(trade.time)
            yield Moment(trade.time, trade)

    def until(self, time: int) -> Iterator[Moment]:
        """The quarters that end by ``time``."""
        while self._next <= time:
            yield Moment(self._next, None, self._next % SECOND_NS == 0)
            self._next += QUARTER_NS


def iterate_ticks(ticks: Ticks) -> Iterator[Tick]:
    """The rows as ``Tick``s with ``received`` equal to ``time``; several times faster than iterating over ``ticks``."""
    columns = (
        ticks.time,
        ticks.product,
        ticks.price,
        ticks.best_bid,
        ticks.best_ask,
        ticks.bid_size,
        ticks.ask_size,
        ticks.last_size,
        ticks.side,
        ticks.trade_id,
        ticks.sequence,
    )
    sides = {int(side): side for side in Side}
    for row in zip(*(column.tolist() for column in columns), strict=True):
        time, product, price, bid, ask, bid_size, ask_size, size, side, trade_id, sequence = row
        yield Tick(
            time=time,
            received=time,
            kind=Kind.TICKER,
            product_id=ticks.products[product],
            price=price,
            best_bid=bid,
            best_ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last_size=size,
            side=sides[side],
            trade_id=trade_id,
            sequence=sequence,
        )


class _Product:
    """One product: its own regime, and its price at the end of the last chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._regimes = RegimeGenerator(onsets_per_s=1 / 450)
        self._log_price = float(np.log(_OPENING_PRICES.get(name, _OPENING_PRICE)))

    def next(self, rng: np.random.Generator, market: Regime, factor: Seconds, start: int) -> Ticks:
        """The ticks of the next chunk, which starts at ``start``."""
        regime = market + self._regimes.next(rng)
        volatility = _VOLATILITY * np.exp(np.minimum(regime.log_volatility, _MOST_LOG_VOLATILITY))
        own = rng.normal(size=CHUNK_S)
        mixed = np.sqrt(_MARKET_SHARE) * factor + np.sqrt(1 - _MARKET_SHARE) * own
        jumps = _VOLATILITY * _JUMP * regime.bursts * rng.normal(size=CHUNK_S)
        path = self._log_price + np.concatenate([[0.0], np.cumsum(volatility * mixed + jumps)])
        self._log_price = float(path[-1])
        times = _tick_times(rng, regime)
        return self._add_quotes(rng, start, times, _mid_prices(rng, times, path, volatility), regime)

    def _add_quotes(
        self, rng: np.random.Generator, start: int, times: Nanoseconds, mid: Seconds, regime: Regime
    ) -> Ticks:
        second = times // SECOND_NS
        bid, ask = _best_quotes(rng, mid, regime, second)
        bid_size, ask_size = _sizes(rng, regime, second)
        n = len(times)
        time = start + times
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
            side=np.full(n, Side.UNKNOWN, np.int8),
            trade_id=np.full(n, MISSING_ID, np.int64),
            sequence=np.full(n, MISSING_ID, np.int64),
        )


def _tick_times(rng: np.random.Generator, regime: Regime) -> Nanoseconds:
    """The times of ticks in nanoseconds from the start of the chunk, ascending; more of them in a volatile market."""
    rate = _TICKS_PER_S * np.exp(0.3 * regime.stress + 0.4 * regime.log_volatility)
    counts = rng.poisson(np.minimum(rate, _MOST_TICKS_PER_S))
    second = np.repeat(np.arange(CHUNK_S) * SECOND_NS, counts)
    return np.sort(second + rng.integers(0, SECOND_NS, len(second)))


def _mid_prices(rng: np.random.Generator, times: Nanoseconds, path: Seconds, volatility: Seconds) -> Seconds:
    """The mid price at each tick: the path of the full seconds with noise between them (a Brownian bridge)."""
    second = times // SECOND_NS
    fraction = times % SECOND_NS / SECOND_NS
    noise = volatility[second] * np.sqrt(fraction * (1 - fraction)) * rng.normal(size=len(times))
    return np.asarray(np.exp(path[second] * (1 - fraction) + path[second + 1] * fraction + noise))


def _best_quotes(
    rng: np.random.Generator, mid: Seconds, regime: Regime, second: NDArray[np.int64]
) -> tuple[Seconds, Seconds]:
    """Best bid and ask around ``mid``, in cents and at least one cent apart; wider under stress."""
    width = _SPREAD * np.exp(0.7 * regime.stress + 0.4 * regime.log_volatility)[second]
    spread = 1 + np.floor(100 * mid * width * rng.exponential(size=len(mid)))
    bid = np.maximum(np.floor(100 * mid - spread / 2), 1)
    return bid / 100, (bid + spread) / 100


def _sizes(rng: np.random.Generator, regime: Regime, second: NDArray[np.int64]) -> tuple[Seconds, Seconds]:
    """Sizes at the best quotes, to eight digits; smaller under stress, most of all on the side of the lean."""
    depth = (-2.0 - 0.5 * regime.stress)[second]
    lean = (0.6 * regime.lean)[second]
    bid, ask = (np.exp(depth + tilt + 0.9 * rng.normal(size=len(second))) for tilt in (-lean, lean))
    return np.maximum(np.round(bid, 8), 1e-8), np.maximum(np.round(ask, 8), 1e-8)


@dataclass(frozen=True, slots=True)
class Regime:
    """``CHUNK_S`` seconds of log volatility, stress (0 is none), lean (which side of the book thins) and bursts."""

    log_volatility: Seconds
    stress: Seconds
    lean: Seconds
    bursts: Seconds

    def __add__(self, other: Regime) -> Regime:
        return Regime(
            self.log_volatility + other.log_volatility,
            self.stress + other.stress,
            self.lean + other.lean,
            self.bursts + other.bursts,
        )


class RegimeGenerator:
    """Draws regimes chunk by chunk; the state between chunks is of constant size.

    Onsets of stress come at random. Most of them, and not all, lead to a burst of volatility some 25 s later; a few
    bursts come without an onset. Bursts have aftershocks as in a Hawkes process.
    """

    def __init__(self, onsets_per_s: float) -> None:
        self._onsets_per_s = onsets_per_s
        self._pending: Seconds = np.empty(0)
        self._calm = self._excitement = self._stress = self._lean = 0.0

    def next(self, rng: np.random.Generator) -> Regime:
        """The regime of the next ``CHUNK_S`` seconds."""
        onsets = rng.random(rng.poisson(self._onsets_per_s * CHUNK_S)) * CHUNK_S
        bursts = _per_second(self._bursts(rng, onsets), rng)
        alarm = _per_second(onsets, rng)
        calm_step = _CALM_SPREAD * np.sqrt(2 / _CALM_MEMORY_S)
        calm = decay(rng.normal(0.0, calm_step, CHUNK_S), _CALM_MEMORY_S, self._calm)
        excitement = decay(bursts, _BURST_MEMORY_S, self._excitement)
        stress = decay(alarm + 0.4 * bursts, _STRESS_MEMORY_S, self._stress)
        lean = decay(alarm * rng.choice([-1.0, 1.0], CHUNK_S), _STRESS_MEMORY_S, self._lean)
        self._calm, self._excitement, self._stress, self._lean = calm[-1], excitement[-1], stress[-1], lean[-1]
        return Regime(calm + excitement, stress, lean, bursts)

    def _bursts(self, rng: np.random.Generator, onsets: Seconds) -> Seconds:
        """The times of the bursts in this chunk, in seconds; those after its end are kept for the next chunk."""
        followed = onsets[rng.random(len(onsets)) < _ANNOUNCED_SHARE]
        announced = followed + rng.gamma(4.0, 6.0, len(followed))
        unannounced = rng.random(rng.poisson(_UNANNOUNCED_PER_S * CHUNK_S)) * CHUNK_S
        generations = [np.concatenate([self._pending, announced, unannounced])]
        while len(generations[-1]):
            parents = generations[-1][generations[-1] < CHUNK_S]
            children = np.repeat(parents, rng.poisson(_CHILDREN, len(parents)))
            generations.append(children + rng.exponential(_CHILD_DELAY_S, len(children)))
        times = np.concatenate(generations)
        self._pending = times[times >= CHUNK_S] - CHUNK_S
        return times[times < CHUNK_S]


def decay(shocks: Seconds, memory_s: float, before: float) -> Seconds:
    """x(k) = φ x(k-1) + shocks(k) with φ = exp(-1/memory_s) and x(-1) = ``before``, without a loop.

    Computed as φ^k Σ φ^-j shocks(j); its terms stay far from overflow for chunks of up to some 100 ``memory_s``.
    """
    age = np.arange(1, len(shocks) + 1) / memory_s
    return np.asarray(np.exp(-age) * (before + np.cumsum(shocks * np.exp(age))))


def _per_second(times: Seconds, rng: np.random.Generator) -> Seconds:
    """The strengths of events, drawn around 0.9, summed per second."""
    strength = rng.gamma(3.0, 0.3, len(times))
    return np.asarray(np.bincount(times.astype(np.int64), strength, CHUNK_S), np.float64)


@dataclass(frozen=True, slots=True)
class _Orders:
    """The times (ns UTC) and sides (+1 buys) of taker orders."""

    time: NDArray[np.int64]
    side: NDArray[np.int8]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Orders:
        return _Orders(self.time[rows], self.side[rows])

    @classmethod
    def join(cls, parts: Sequence[_Orders]) -> Self:
        return cls(np.concatenate([part.time for part in parts]), np.concatenate([part.side for part in parts]))


class _TradeFlow:
    """The trades of one product, chunk by chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pending = _Orders(np.empty(0, np.int64), np.empty(0, np.int8))
        self._touch = {quote: np.empty(0) for quote in _QUOTES}
        self._trade_id = _FIRST_TRADE_ID
        self._sequence = _FIRST_SEQUENCE

    def next(self, rng: np.random.Generator, quoted: Ticks, end: int) -> Ticks:
        """The trades around one product's ``quoted`` ticks, whose chunk ends at ``end``."""
        orders = self._orders(rng, quoted, end)
        row = np.searchsorted(quoted.time // _MICROSECOND_NS * _MICROSECOND_NS, orders.time, side="right")
        carried = len(self._touch["best_bid"])  # the previous chunk's last quotes, for trades before its first
        touch = {name: np.concatenate([self._touch[name], getattr(quoted, name)]) for name in _QUOTES}
        quotes = {name: column[row - 1 + carried] for name, column in touch.items()}
        self._touch = {name: column[-1:] for name, column in touch.items()}
        price = np.where(orders.side == Side.BUY, quotes["best_ask"], quotes["best_bid"])
        n = len(price)
        trade_id = self._trade_id + np.arange(1, n + 1)
        sequence = self._sequence + np.cumsum(rng.integers(1, _MOST_MESSAGES_BETWEEN, n))
        if n:
            self._trade_id, self._sequence = int(trade_id[-1]), int(sequence[-1])
        lots = np.rint(_NOTIONAL / price * np.exp(1.3 * rng.normal(size=n)) * 1e8)
        return Ticks(
            products=(self.name,),
            time=orders.time,
            received=orders.time + LATENCY_NS,
            kind=np.full(n, Kind.TICKER, np.int8),
            product=np.zeros(n, np.int32),
            price=price,
            last_size=np.maximum(lots, 1) / 1e8,
            side=orders.side,
            trade_id=trade_id,
            sequence=sequence,
            **quotes,
        )

    def _orders(self, rng: np.random.Generator, quoted: Ticks, end: int) -> _Orders:
        """All orders before ``end`` in the order of time; later ones that they trigger are kept for the next chunk."""
        side = np.where(quoted.price == quoted.best_ask, Side.BUY, Side.SELL).astype(np.int8)
        generations = [self._pending, _Orders(quoted.time // _MICROSECOND_NS * _MICROSECOND_NS, side)]
        parents = _Orders.join(generations)
        while len(parents.time):
            parents = parents[parents.time < end]
            parents = parents[
                np.repeat(np.arange(len(parents.time)), rng.poisson(_CHILDREN_PER_TRADE, len(parents.time)))
            ]
            n = len(parents.time)
            delay = 1 + (rng.exponential(_CHILD_DELAY_NS, n) // _MICROSECOND_NS).astype(np.int64)
            turned = np.where(rng.random(n) < _SAME_SIDE, parents.side, -parents.side).astype(np.int8)
            parents = _Orders(parents.time + delay * _MICROSECOND_NS, turned)
            generations.append(parents)
        orders = _Orders.join(generations)
        orders = orders[np.argsort(orders.time, kind="stable")]
        self._pending = orders[orders.time >= end]
        return orders[orders.time < end]
