"""A slow, obvious implementation of the features: every row from the ticks themselves, with exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from volspike.market import Kind, Profile, Tick

SECOND = 1_000_000_000


@dataclass
class Session:
    """One product's admitted events between two long silences, each with the time at which it counts."""

    ticks: list[tuple[int, Tick]] = field(default_factory=list)
    trades: list[tuple[int, Tick]] = field(default_factory=list)
    clock: int = 0
    leader: dict[int, dict[str, float]] = field(default_factory=dict)
    """Features of the leader by newest finished second."""
    ratios: dict[int, float] = field(default_factory=dict)
    """ln of the price over the leader's by finished second, as known when it was over."""

    @property
    def first_second(self) -> int:
        return self.ticks[0][0] // SECOND

    def price_at_end_of(self, second: int) -> float:
        return next(tick.price for at, tick in reversed(self.ticks) if at // SECOND <= second)


def deviation(values: Sequence[float]) -> float:
    """Population standard deviation, with exact sums."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def window_features(
    session: Session, window: int, last_second: int, price: float, prices: Sequence[float], profile: Profile
) -> list[float]:
    """The seven families; ``prices`` are P(k) of the window's seconds and the one before them."""
    ticks = [t for at, t in session.ticks if last_second - window < at // SECOND <= last_second]
    returns = [math.log1p((b - a) / a) for a, b in pairwise(prices)]
    moves = [abs(b - a) for a, b in pairwise(prices)]
    spreads = [t.best_ask - t.best_bid for t in ticks if not math.isnan(t.best_ask - t.best_bid)]
    shares = [
        t.bid_size / (t.bid_size + t.ask_size) for t in ticks if t.bid_size + t.ask_size > 0
    ]  # NaN compares false
    sized = session.trades if profile is Profile.TICKER_AND_TRADE else session.ticks
    sizes = [t.last_size for at, t in sized if last_second - window < at // SECOND <= last_second]
    sizes = [size for size in sizes if not math.isnan(size)]
    has_sizes = profile is not Profile.TICKER or any(not math.isnan(t.last_size) for _, t in session.ticks)
    base = session.price_at_end_of(last_second - window)
    return [
        math.log1p((price - base) / base),
        deviation(returns),
        math.fsum(moves) / window,
        math.fsum(spreads) / len(spreads) if spreads else math.nan,
        math.fsum(shares) / len(shares) if shares else math.nan,
        float(len(ticks)),
        math.fsum(sizes) if has_sizes else math.nan,
    ]


def family_major(per_window: list[list[float]]) -> list[float]:
    return [values[family] for family in range(7) for values in per_window]


def row_at_tick(session: Session, windows: Sequence[int], profile: Profile) -> list[float]:
    """Features right after the session's newest tick."""
    now, tick = session.ticks[-1]
    second = now // SECOND
    per_window = []
    for window in windows:
        if second - session.first_second < window + 1:
            per_window.append([math.nan] * 7)
            continue
        prices = [session.price_at_end_of(k) for k in range(second - window - 1, second)]
        per_window.append(window_features(session, window, second, tick.price, prices, profile))
    return family_major(per_window)


def row_at_end_of(session: Session, second: int, windows: Sequence[int], profile: Profile) -> list[float]:
    """Features at the end of a finished second."""
    per_window = []
    for window in windows:
        if second - session.first_second + 1 < window + 1:
            per_window.append([math.nan] * 7)
            continue
        prices = [session.price_at_end_of(k) for k in range(second - window, second + 1)]
        per_window.append(window_features(session, window, second, prices[-1], prices, profile))
    return family_major(per_window)


Further: TypeAlias = Callable[["Session", int, int, bool], list[float]]
"""(session, newest finished second, the row's time, warm) → the features after the seven families."""


@dataclass
class Row:
    """One row as the reference computes it."""

    timestamp: int
    session_id: int
    features: list[float]
    since_trade: float
    gap: float
    is_warm: bool
    is_whole: bool


class ReferenceEngine:
    """One product's rows; drops late and repeated events by the rule in ``FeatureEngine``'s docstring."""

    def __init__(
        self, windows: Sequence[int], profile: Profile, by_second: bool, further: Further = lambda *_: []
    ) -> None:
        self.windows, self.profile, self.by_second, self.further = windows, profile, by_second, further
        self.session: Session | None = None
        self.former: Session | None = None
        self.newest: dict[Kind, Tick] = {}
        self.ids: dict[Kind, list[int]] = {Kind.TICKER: [], Kind.TRADE: []}
        self.clock: int | None = None
        self.last_trade: int | None = None
        self.hole_end: int | None = None
        self.far_behind = 0

    def is_admitted(self, tick: Tick) -> bool:
        before = self.newest.get(tick.kind)
        if tick.trade_id >= 0:
            if tick.trade_id in self.ids[tick.kind][-256:]:
                return False
        elif (
            (tick.kind is Kind.TICKER or tick.sequence >= 0)
            and before is not None
            and repr(content(tick)) == repr(content(before))
        ):
            return False
        if before is not None and tick.time < before.time and not self.is_clock_set_back(before.time - tick.time):
            return False
        self.far_behind = 0
        self.newest[tick.kind] = tick
        if tick.trade_id >= 0:
            self.ids[tick.kind].append(tick.trade_id)
        return True

    def is_clock_set_back(self, behind: int) -> bool:
        self.far_behind += behind > 300 * SECOND
        if behind <= 300 * SECOND or self.far_behind < 10:
            return False
        self.newest, self.former, self.session, self.clock = {}, None, None, None
        return True

    def update(self, tick: Tick) -> list[Row]:
        if tick.kind is Kind.TRADE and self.profile is Profile.TICKER:
            return []
        if not self.is_admitted(tick):
            return []
        is_tick = tick.kind is Kind.TICKER or self.profile is Profile.TRADE
        before = self.clock
        now = max(tick.time, before or 0)
        rows: list[Row] = []
        if self.session is None or before is None or now - before > 300 * SECOND:
            if not is_tick:
                return []
            if self.session is not None and self.by_second and before is not None:
                rows.append(self.row_of_second(before // SECOND, before))
            self.former, self.session = self.session, Session()
            self.last_trade, self.hole_end = None, None
        elif self.by_second:
            rows.extend(self.row_of_second(k, before) for k in range(before // SECOND, now // SECOND))
        if self.session.ticks and before is not None and now - before > 10 * SECOND:
            self.hole_end = now
        self.clock = self.session.clock = now
        traded, had_size = self.last_trade, not math.isnan(tick.last_size)
        if had_size:
            self.last_trade = now
        if not is_tick:
            self.session.trades.append((now, tick))
            return rows
        self.session.ticks.append((now, tick))
        if self.by_second:
            return rows
        longest = self.windows[-1]
        warm = now // SECOND - self.session.first_second >= longest + 1
        families = row_at_tick(self.session, self.windows, self.profile)
        return [
            Row(
                now,
                self.session.first_second,
                families + self.further(self.session, now // SECOND - 1, now, warm),
                (now - traded) / 1e9 if traded is not None else math.nan,
                (now - before) / 1e9 if before is not None else math.nan,
                warm,
                self.hole_end is None or now - self.hole_end > longest * SECOND,
            )
        ]

    def row_of_second(self, second: int, clock: int) -> Row:
        assert self.session is not None
        now, longest = (second + 1) * SECOND, self.windows[-1]
        warm = second - self.session.first_second + 1 >= longest + 1
        families = row_at_end_of(self.session, second, self.windows, self.profile)
        return Row(
            now,
            self.session.first_second,
            families + self.further(self.session, second, now, warm),
            (now - self.last_trade) / 1e9 if self.last_trade is not None else math.nan,
            (now - clock) / 1e9,
            warm,
            now - clock <= 10 * SECOND and (self.hole_end is None or now - self.hole_end > longest * SECOND),
        )


def content(tick: Tick) -> tuple[object, ...]:
    """The fields that are equal if two events without an id are duplicates."""
    sizes = (tick.bid_size, tick.ask_size, tick.last_size)
    return (tick.time, tick.sequence, tick.price, tick.best_bid, tick.best_ask, *sizes)


def assert_close(actual: np.ndarray, expected: Sequence[float]) -> None:
    """Equal to 1e-9 relative, or 1e-15 absolute, with NaN in the same places."""
    np.testing.assert_allclose(actual, np.array(expected), rtol=1e-9, atol=1e-15)
