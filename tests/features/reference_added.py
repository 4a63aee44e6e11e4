"""The added features computed from their formulas: complete sessions in NumPy, no state, no running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.features.reference import SECOND, ReferenceEngine, Row, Session
from tests.features.reference_path import over, price_path
from volspike.features import CATALOGUE, FeatureSet, catalogue
from volspike.market import Profile, Tick

NAN = math.nan
DAY = ("hour_to_day_ratio", "yesterday_to_day_ratio", "yesterday_to_hour_ratio")
"""NaN in the markets of less than an hour that ``ReferenceMarket`` is for."""

Floats = NDArray[np.float64]


def order_flow(before: Tick | None, now: Tick) -> float:
    """Cont, Kukanov, Stoikov (2014), equation 1."""
    if before is None:
        return 0.0
    bought = now.bid_size * (now.best_bid >= before.best_bid) - before.bid_size * (now.best_bid <= before.best_bid)
    sold = now.ask_size * (now.best_ask <= before.best_ask) - before.ask_size * (now.best_ask >= before.best_ask)
    return bought - sold


def has_book(tick: Tick) -> bool:
    quoted = math.isfinite(tick.best_bid + tick.best_ask)
    return quoted and tick.bid_size + tick.ask_size > 0  # NaN compares false


class Seconds:
    """The finished seconds of a session up to ``newest``, its first one included."""

    def __init__(self, session: Session, newest: int, profile: Profile) -> None:
        self.session, self.newest, self.profile = session, newest, profile
        self.first = session.first_second
        n = newest - self.first + 1
        self.price = np.full(n, NAN)
        self.ticks, self.quotes, self.books = np.zeros(n), np.zeros(n), np.zeros(n)
        self.size, self.sided, self.signed = np.zeros(n), np.zeros(n), np.zeros(n)
        self.flow, self.depth, self.spread = np.zeros(n), np.zeros(n), np.zeros(n)
        self._take_ticks()
        self._take_sizes()
        priced = np.where(np.isnan(self.price), 0, np.arange(n))
        self.price = self.price[np.maximum.accumulate(priced)]
        self.r = np.concatenate([[0.0], np.log1p(np.diff(self.price) / self.price[:-1])])
        self.neighbours = self.r * np.concatenate([[0.0], self.r[:-1]])

    def _take_ticks(self) -> None:
        before = None
        for at, tick in self.session.ticks:
            k = at // SECOND - self.first
            if k >= len(self.price):
                break
            self.price[k] = tick.price
            self.ticks[k] += 1
            if not math.isnan(tick.best_ask - tick.best_bid):
                self.quotes[k] += 1
                self.spread[k] += tick.best_ask - tick.best_bid
            if has_book(tick):
                self.flow[k] += order_flow(before, tick)
                self.depth[k] += (tick.bid_size + tick.ask_size) / 2
                self.books[k] += 1
                before = tick

    def _take_sizes(self) -> None:
        sized = self.session.trades if self.profile is Profile.TICKER_AND_TRADE else self.session.ticks
        for at, tick in sized:
            k = at // SECOND - self.first
            if k < len(self.price) and not math.isnan(tick.last_size):
                self.size[k] += tick.last_size
                self.sided[k] += abs(tick.side) * tick.last_size
                self.signed[k] += tick.side * tick.last_size

    def mean(self, h: int, x: Floats) -> float:
        """E_h[x]."""
        weights = 0.5 ** (np.arange(len(x) - 2, -1, -1) / h)
        return float(weights @ x[1:] / weights.sum()) if len(weights) else NAN

    def deviation(self, w: int) -> float:
        """V_w."""
        return float(np.std(self.r[1:][-w:]))

    def over(self, q: int) -> Floats:
        """(ln P(k)/P(k−q))² of every second."""
        then = self.price[np.maximum(np.arange(len(self.price)) - q, 0)]
        squares: Floats = np.log1p((self.price - then) / then) ** 2
        return squares


def by_second(s: Seconds) -> dict[str, float]:
    """The features that all rows of a second share."""
    e, r, v = s.mean, s.r, s.deviation
    r2 = r**2
    bipower = math.pi / 2 * np.abs(s.neighbours)
    found = {f"realized_volatility_{w}s": v(w) for w in (10, 900, 3600)}
    found |= {f"volatility_ratio_{w}s": over(v(w), v(3600)) for w in (10, 30, 60, 300, 900)}
    for h in (10, 30, 60, 300, 600, 1800):
        up, down = e(h, r2 * (r > 0)), e(h, r2 * (r < 0))
        found |= {
            f"ewma_volatility_{h}s": math.sqrt(e(h, r2)),
            f"ewma_ratio_{h}s": math.sqrt(over(e(h, r2), e(1800, r2))),
            f"bipower_volatility_{h}s": math.sqrt(e(h, bipower)),
            f"jump_share_{h}s": np.maximum(0.0, 1 - over(e(h, bipower), e(h, r2))),
            f"upside_volatility_{h}s": math.sqrt(up),
            f"downside_volatility_{h}s": math.sqrt(down),
            f"semivariance_balance_{h}s": over(up - down, e(h, r2)),
            f"trend_{h}s": over(e(h, r), math.sqrt(e(h, r2))),
            f"trend_strength_{h}s": over(abs(e(h, r)), math.sqrt(e(h, r2))),
            f"return_autocorrelation_{h}s": over(e(h, s.neighbours), e(h, r2)),
            f"moving_share_{h}s": e(h, (r != 0).astype(float)),
            f"volume_ratio_{h}s": over(e(h, s.size), e(1800, s.size)),
            f"flow_imbalance_{h}s": over(e(h, s.signed), e(h, s.sided)),
            f"tick_ratio_{h}s": over(e(h, s.ticks), e(1800, s.ticks)),
            f"order_flow_imbalance_{h}s": over(e(h, s.flow), over(e(h, s.depth), e(h, s.books))),
        }
    for q in (10, 30, 60):
        found[f"sparse_volatility_{q}s"] = math.sqrt(e(60, s.over(q)) / q)
        found[f"variance_ratio_{q}s"] = over(e(300, s.over(q)), q * e(300, r2))
    found["spread_mean_ratio_60s"] = over(over(e(60, s.spread), e(60, s.quotes)), mean_spread(s))
    end = s.newest + 1
    found["time_of_day_sin"], found["time_of_day_cos"] = (f(2 * math.pi * end / 86_400) for f in (math.sin, math.cos))
    found |= {f"seconds_to_full_{m}min": float(60 * m - end % (60 * m)) for m in (5, 15, 60)}
    for j in range(1, 61):
        found[f"lag_return_{j}s"], found[f"lag_ticks_{j}s"] = float(r[-j]), float(s.ticks[-j])
    return found | price_path(s)


def mean_spread(s: Seconds) -> float:
    return over(s.mean(1800, s.spread), s.mean(1800, s.quotes))


def at_tick(s: Seconds, session: Session, now: int) -> dict[str, float]:
    """The features that change with every tick, from all ticks of the session up to ``now``."""
    found = {}
    ages = np.array([(now - at) / 1e9 for at, _ in session.ticks])
    for h in (1, 10, 60):
        found[f"decaying_intensity_{h}s"] = beat = float(math.log(2) / h * np.sum(0.5 ** (ages / h)))
        found[f"intensity_ratio_{h}s"] = over(beat, s.mean(1800, s.ticks))
    tick = session.ticks[-1][1]
    bid, ask, resting = tick.best_bid, tick.best_ask, tick.bid_size + tick.ask_size
    mid = (bid + ask) / 2
    balance = over(bid * tick.ask_size + ask * tick.bid_size, resting) if resting > 0 else NAN
    found["weighted_mid_bps"] = (balance - mid) / mid * 1e4
    found["quoted_spread_bps"] = (ask - bid) / mid * 1e4
    found["spread_ratio"] = over(ask - bid, mean_spread(s))
    return found


LEADER = tuple(feature.name for feature in catalogue.LEADER)


def leader_session(leader: ReferenceEngine | None, newest: int) -> tuple[Session | None, int]:
    """The leader's session that second ``newest`` lies in, or the 300 s after it, and how many seconds are known."""
    if leader is None or leader.session is None or leader.clock is None:
        return None, -1
    session = leader.session if newest >= leader.session.first_second else leader.former
    if session is None or (newest + 1) * SECOND - session.clock > 300 * SECOND or newest < session.first_second:
        return None, -1
    return session, min(newest - session.first_second, 4095 - (leader.clock // SECOND - newest))


def log_ratio_to_leader(session: Session, leader: ReferenceEngine | None, second: int) -> float:
    """ln(P/L) at the end of a second, from the leader's events so far; NaN if its price is unknown."""
    of_leader, known = leader_session(leader, second)
    if of_leader is None or known < 0:
        return NAN
    return math.log(session.price_at_end_of(second) / of_leader.price_at_end_of(second))


def of_leader(session: Session, leader: ReferenceEngine | None, newest: int) -> dict[str, float]:
    """The leader's features at the end of second ``newest``, from its events so far."""
    led, known = leader_session(leader, newest)
    if leader is None or led is None or known < 60 or newest - session.first_second < 10:
        return dict.fromkeys(LEADER, NAN)
    seconds = Seconds(led, newest, leader.profile)
    minute, ten, hour = (seconds.deviation(w) for w in (60, 10, min(known, 3600)))
    price = {q: led.price_at_end_of(newest - q) for q in (0, 1, 5, 10)}
    ratios = np.array([session.ratios[k] for k in range(session.first_second, newest + 1)])
    change = math.log(session.price_at_end_of(newest) / session.price_at_end_of(newest - 10))
    return {
        "leader_volatility_60s": minute,
        "leader_volatility_ratio_60s": over(minute, hour),
        "leader_volatility_ratio_10s": over(ten, hour),
        **{f"leader_return_{q}s": math.log(price[0] / price[q]) for q in (1, 5, 10)},
        "leader_difference_bps": 1e4 * (ratios[-1] - mean_of_known(ratios)),
        "leader_difference_change_10s": 1e4 * (change - math.log(price[0] / price[10])),
    }


def mean_of_known(values: Floats) -> float:
    """The weighted mean of the values that are not NaN; a second without a value ages no other."""
    known = ~np.isnan(values)
    aged = 2.0 ** (-np.arange(known.sum())[::-1] / 1800)
    return float(aged @ values[known] / aged.sum())


class ReferenceMarket:
    """The rows of any number of products with a feature set of any scope."""

    def __init__(self, feature_set: FeatureSet, profile: Profile, by_second: bool) -> None:
        self.feature_set, self.profile, self.by_second = feature_set, profile, by_second
        self.names = feature_set.names[7 * len(feature_set.windows) :]
        self.engines: dict[str, ReferenceEngine] = {}

    def further(self, session: Session, newest: int, now: int, warm: bool) -> list[float]:
        if not warm or not self.names:
            return [NAN] * len(self.names)
        seconds = Seconds(session, newest, self.profile)
        found = by_second(seconds) | at_tick(seconds, session, now)
        found |= self.leader_at(session, newest) | dict.fromkeys(DAY, NAN)
        return [found[name] for name in self.names]

    def leader_at(self, session: Session, newest: int) -> dict[str, float]:
        """The leader's features, as known when the second after ``newest`` began; its rows share them."""
        if self.feature_set.leader is None:
            return {}
        leader = self.engines.get(self.feature_set.leader)
        for second in range(session.first_second + len(session.ratios), newest + 1):
            session.ratios[second] = log_ratio_to_leader(session, leader, second)
        if newest not in session.leader:
            session.leader[newest] = of_leader(session, leader, newest)
        return session.leader[newest]

    def update(self, tick: Tick) -> list[Row]:
        engine = self.engines.get(tick.product_id)
        if engine is None:
            engine = ReferenceEngine(self.feature_set.windows, self.profile, self.by_second, self.further)
            self.engines[tick.product_id] = engine
        rows = engine.update(tick)
        if engine.session is not None and engine.clock is not None:  # an event without a row may begin a second, too
            self.leader_at(engine.session, engine.clock // SECOND - 1)
        return rows


def assert_features_close(feature_set: FeatureSet, actual: Floats, expected: Sequence[float]) -> None:
    """Equal to 1e-9 relative, NaN in the same places.

    Shares and balances are differences of numbers about 1, which have no digits below 1e-12 to compare.
    """
    spread = [name not in CATALOGUE or CATALOGUE[name].is_logarithmic for name in feature_set.names]
    least = np.where(spread, 1e-15, 1e-11)
    wanted = np.array(expected)
    wrong = ~np.isclose(actual, wanted, rtol=1e-9, atol=0.0, equal_nan=True) & ~(np.abs(actual - wanted) <= least)
    different = {feature_set.names[i]: (float(actual[i]), float(wanted[i])) for i in np.flatnonzero(wrong)}
    assert not different, different
