"""Feature names, units, formulas and windows, and the digest that ties a model to them.

``FAMILIES`` are the seven families over the windows of a set. ``CATALOGUE`` has the further features of the full and
the deep set, in the kernel's order. These are independent of a product's scale, so one model serves many products:
returns and volatilities are logarithmic, the rest are shares, times, or ratios to the product's own last hour.

Notation of the formulas. k is the newest finished second: for a row at a tick, the second before the tick's; for a row
at the end of a second, that second. r(k) is its log return; a session's first second has none, which counts as 0 in a
product of neighbours. E_h[x] is the exponentially weighted mean of x over the session's finished seconds without its
first one, with a half-life of h seconds: weights 2^(−j/h) for the second j before k, divided by their sum. V_w is the
standard deviation (ddof 0) of the last w returns, or of as many as the session has. P(k−q) is the closing price of the
session's first second if k−q lies before it. Σ is taken over the ticks of one second, n is their number. A quotient by
0 is NaN, and so is one by a mean that decayed below 10⁻²⁰⁰.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from volspike.errors import UsageError
from volspike.features.kernel.layout import HALF_LIVES, LAGS

DEFINITION: Final = 1
"""Raise it whenever a feature's arithmetic changes: models trained on the old values are then refused."""

_DIGEST_WORDINGS: Final = {
    "the feed has no sizes": "the feed tells no sizes",
    "of ticks with bid b": "of ticks telling bid b",
}
"""Texts that changed after the digests of definition 1 were computed, and how they enter the digest."""

DEFAULT_WINDOWS: Final = (30, 60, 300)
LONGEST_WINDOW_S: Final = 7200
SHORTEST_LONGEST_WINDOW_S: Final = 60
"""The least longest window of the full and the deep set, whose features cover a minute second by second."""


@dataclass(frozen=True, slots=True)
class Family:
    """One quantity, computed over every window of the set; ``seconds`` are those that a window of w seconds covers."""

    name: str
    unit: str
    meaning: str
    seconds: str


_RETURNS = "r(s−w) … r(s−1) at a tick in second s; r(k−w+1) … r(k) at the end of second k"
_TICKS = "ticks of seconds s−w+1 … s up to this one; of seconds k−w+1 … k"

FAMILIES: Final = (
    Family(
        "log_return",
        "1",
        "ln of the price over the price one window ago",
        "ln(price / P(s−w)) at a tick in second s; ln(P(k) / P(k−w)) at the end of second k",
    ),
    Family("realized_volatility", "1", "standard deviation (ddof 0) of the window's one-second log returns", _RETURNS),
    Family(
        "price_velocity",
        "quote/s",
        "mean absolute one-second price change",
        "|P(k) − P(k−1)| of the same seconds as the volatility",
    ),
    Family("spread_mean", "quote", "mean of best ask less best bid over the window's ticks", _TICKS),
    Family("order_book_imbalance", "1", "mean of bid size / (bid size + ask size) over the window's ticks", _TICKS),
    Family("trade_intensity", "ticks", "number of ticks in the window", _TICKS),
    Family("volume_velocity", "base", "sum of trade sizes in the window; NaN where the feed has no sizes", _TICKS),
)


@dataclass(frozen=True, slots=True)
class Feature:
    """One further feature: unit, meaning, formula and source.

    ``is_logarithmic`` marks those that vary over orders of magnitude; a linear model uses their logarithm.
    """

    name: str
    unit: str
    meaning: str
    formula: str
    source: str = ""
    is_logarithmic: bool = False


_ANDERSEN = "Andersen, Bollerslev, Diebold, Labys, Econometrica 71 (2003)"
_BIPOWER = "Barndorff-Nielsen, Shephard, J. Financial Econometrics 2 (2004)"
_SEMI = "Barndorff-Nielsen, Kinnebrock, Shephard, Measuring downside risk (2010)"
_RISKMETRICS = "RiskMetrics technical document (1996)"
_ROLL = "Roll, J. Finance 39 (1984)"
_SPARSE = "Zhang, Mykland, Aït-Sahalia, J. American Statistical Association 100 (2005)"
_VARIANCE_RATIO = "Lo, MacKinlay, Review of Financial Studies 1 (1988)"
_OFI = "Cont, Kukanov, Stoikov, J. Financial Econometrics 12 (2014)"
_MICRO = "Gatheral, Oomen, Finance and Stochastics 14 (2010)"
_HAR = "Corsi, J. Financial Econometrics 7 (2009)"
_HAWKES = "Hawkes, Biometrika 58 (1971)"


def _volatilities() -> Iterator[Feature]:
    for w in (10, 900, 3600):
        meaning = "standard deviation (ddof 0) of the last one-second log returns"
        yield Feature(f"realized_volatility_{w}s", "1", meaning, f"V_{w}", _ANDERSEN if w == 10 else _HAR, True)
    for w in (10, 30, 60, 300, 900):
        meaning = "volatility relative to that of the last hour; NaN if the price did not move in that hour"
        yield Feature(f"volatility_ratio_{w}s", "1", meaning, f"V_{w} / V_3600", "", True)
    for h in HALF_LIVES:
        meaning = "exponentially weighted volatility around zero"
        yield Feature(f"ewma_volatility_{h}s", "1", meaning, f"√E_{h}[r²]", _RISKMETRICS, True)
    for h in (10, 60, 300):
        meaning = "exponentially weighted volatility relative to that of the last hour"
        yield Feature(f"ewma_ratio_{h}s", "1", meaning, f"√(E_{h}[r²] / E_1800[r²])", "", True)


def _parts_of_variance() -> Iterator[Feature]:
    for h in (60, 300, 1800):
        meaning = "volatility of the continuous part, estimated from neighbouring returns"
        formula = f"√(π/2 · E_{h}[|r(k) r(k−1)|])"
        yield Feature(f"bipower_volatility_{h}s", "1", meaning, formula, _BIPOWER, True)
    for h in (60, 300, 1800):
        formula = f"max(0, 1 − π/2 · E_{h}[|r(k) r(k−1)|] / E_{h}[r²]), NaN where nothing moved"
        yield Feature(f"jump_share_{h}s", "1", "share of the variance that came in jumps", formula, _BIPOWER)
    for h in (60, 300):
        yield Feature(
            f"upside_volatility_{h}s", "1", "root of the upward semivariance", f"√E_{h}[r² · 1(r > 0)]", _SEMI, True
        )
    for h in (60, 300):
        yield Feature(
            f"downside_volatility_{h}s", "1", "root of the downward semivariance", f"√E_{h}[r² · 1(r < 0)]", _SEMI, True
        )
    for h in (60, 300, 1800):
        formula = f"E_{h}[r² · sign(r)] / E_{h}[r²]"
        meaning = "upward less downward semivariance, as a share of the variance"
        yield Feature(f"semivariance_balance_{h}s", "1", meaning, formula, _SEMI)


def _paths() -> Iterator[Feature]:
    for h in (10, 30, 60, 300, 600):
        yield Feature(f"trend_{h}s", "1", "mean return in units of the volatility", f"E_{h}[r] / √E_{h}[r²]")
    for h in (10, 30, 60, 300, 600):
        yield Feature(f"trend_strength_{h}s", "1", "absolute value of the trend", f"|E_{h}[r]| / √E_{h}[r²]")
    for h in (10, 60, 1800):
        meaning = "autocorrelation of neighbouring returns: prices reverse below 0 and continue above 0"
        yield Feature(f"return_autocorrelation_{h}s", "1", meaning, f"E_{h}[r(k) r(k−1)] / E_{h}[r²]", _ROLL)
    for q in (10, 30, 60):
        meaning = f"volatility per second estimated from {q}-second returns, which the bid-ask bounce does not inflate"
        formula = f"√(E_60[(ln P(k)/P(k−{q}))²] / {q})"
        yield Feature(f"sparse_volatility_{q}s", "1", meaning, formula, _SPARSE, True)
    for q in (10, 30, 60):
        meaning = f"variance of {q}-second returns relative to that of one-second returns: 1 for a random walk"
        formula = f"E_300[(ln P(k)/P(k−{q}))²] / ({q} · E_300[r²])"
        yield Feature(f"variance_ratio_{q}s", "1", meaning, formula, _VARIANCE_RATIO, True)
    for h in (60, 1800):
        yield Feature(f"moving_share_{h}s", "1", "share of seconds in which the price changed", f"E_{h}[1(r ≠ 0)]")


def _flows() -> Iterator[Feature]:
    for h in (10, 60, 300):
        meaning = "traded size relative to that of the last hour; NaN if the feed has no sizes"
        yield Feature(f"volume_ratio_{h}s", "1", meaning, f"E_{h}[Σ size] / E_1800[Σ size]", "", True)
    for h in (10, 60, 300, 1800):
        meaning = "size bought less size sold by takers, as a share of the size traded; NaN if the feed has no sides"
        formula = f"E_{h}[Σ ±size] / E_{h}[Σ size], of sizes with a side: + bought, − sold"
        yield Feature(f"flow_imbalance_{h}s", "1", meaning, formula)
    for h in (10, 60, 300):
        yield Feature(
            f"tick_ratio_{h}s",
            "1",
            "number of ticks relative to that of the last hour",
            f"E_{h}[n] / E_1800[n]",
            "",
            True,
        )
    for h in (10, 60, 300):
        meaning = "size joining the bid or leaving the ask, less the reverse, per second in mean sizes of best quotes"
        formula = (
            f"E_{h}[Σ e] / (E_{h}[Σ (q + a)/2] / E_{h}[books]) of ticks with bid b, ask c, sizes q, a, not both 0; "
            "e = q·1(b ≥ b′) − q′·1(b ≤ b′) − a·1(c ≤ c′) + a′·1(c ≥ c′), ′ the one before, 0 for the session's first"
        )
        yield Feature(f"order_flow_imbalance_{h}s", "1/s", meaning, formula, _OFI)
    meaning = "mean spread relative to that of the last hour; NaN unless that is above 0"
    yield Feature("spread_mean_ratio_60s", "1", meaning, f"{_mean_spread(60)} / ({_mean_spread(1800)})", "", True)


def _mean_spread(h: int) -> str:
    return f"E_{h}[Σ (ask − bid)] / E_{h}[quotes]"


def _clock() -> Iterator[Feature]:
    yield Feature("time_of_day_sin", "1", "phase of the UTC day", "sin(2π (k + 1) / 86 400 s)")
    yield Feature("time_of_day_cos", "1", "phase of the UTC day", "cos(2π (k + 1) / 86 400 s)")
    for minutes in (5, 15, 60):
        meaning = f"time from the end of second k to the next full {minutes} minutes"
        formula = f"60·{minutes} − (k + 1) mod (60·{minutes})"
        yield Feature(f"seconds_to_full_{minutes}min", "s", meaning, formula)


def _at_the_tick() -> Iterator[Feature]:
    for h in (1, 10, 60):
        meaning = "exponentially decaying rate of ticks"
        formula = f"ln 2/{h} · Σ 2^(−age/{h} s) over the session's ticks, this one too"
        yield Feature(f"decaying_intensity_{h}s", "ticks/s", meaning, formula, _HAWKES, True)
    for h in (1, 10, 60):
        meaning = "decaying rate of ticks relative to the mean rate of the last hour"
        yield Feature(f"intensity_ratio_{h}s", "1", meaning, f"decaying_intensity_{h}s / E_1800[n]", "", True)
    meaning = "mid weighted by the size on the other side, less the mid; NaN without sizes"
    formula = "((bid·ask size + ask·bid size)/(bid size + ask size) − mid) / mid · 10⁴, NaN where both sizes are 0"
    yield Feature("weighted_mid_bps", "basis points", meaning, formula, _MICRO)
    yield Feature(
        "quoted_spread_bps", "basis points", "current spread over the mid price", "(ask − bid) / mid · 10⁴", "", True
    )
    meaning = "current spread relative to its mean over the last hour; NaN unless that is above 0"
    yield Feature("spread_ratio", "1", meaning, f"(ask − bid) / ({_mean_spread(1800)})", "", True)


def _of_leader() -> Iterator[Feature]:
    at = "of the leader at second k, its price carried where its newest tick is older"
    meaning = "volatility of the leader; NaN until its session is a minute long, and after its session"
    yield Feature("leader_volatility_60s", "1", meaning, f"V_60 {at}", "", True)
    meaning = "volatility of the leader relative to its last hour"
    yield Feature("leader_volatility_ratio_60s", "1", meaning, f"V_60 / V_3600 {at}", "", True)


def _lags() -> Iterator[Feature]:
    for j in range(1, LAGS + 1):
        meaning = "log return of one of the last finished seconds; 1 is the newest"
        yield Feature(f"lag_return_{j}s", "1", meaning, f"r(k + 1 − {j})")
    for j in range(1, LAGS + 1):
        meaning = "ticks of one of the last finished seconds; 1 is the newest"
        yield Feature(f"lag_ticks_{j}s", "ticks", meaning, f"n(k + 1 − {j})")


AT_TICK: Final = tuple(_at_the_tick())
"""Features that change with every tick."""

BY_SECOND: Final = (*_volatilities(), *_parts_of_variance(), *_paths(), *_flows(), *_clock())
"""Features that change only from second to second."""

LEADER: Final = tuple(_of_leader())
"""Volatility of another product, computed from its ticks before the row."""

LAGGED: Final = tuple(_lags())
"""The last minute second by second, for models that read a sequence."""

CATALOGUE: Final[Mapping[str, Feature]] = {
    feature.name: feature for feature in (*AT_TICK, *BY_SECOND, *LEADER, *LAGGED)
}
"""Every feature beyond the families, by name."""

GROUPS: Final = {
    "Now": AT_TICK,
    "Volatility": tuple(_volatilities()),
    "Parts of the variance": tuple(_parts_of_variance()),
    "Paths": tuple(_paths()),
    "Flows": tuple(_flows()),
    "Clock": tuple(_clock()),
    "Leader": LEADER,
    "The last minute": LAGGED,
}
"""The same features by subject, for the documentation."""

ROW_MEANINGS: Final = {
    "timestamp": "the tick's time, or the end of the second; ns UTC",
    "product_id": "the product, such as BTC-USD",
    "price": "the tick's price, or the last one of the second; quote currency",
    "best_bid": "best bid of the newest tick; NaN if it has none",
    "best_ask": "best ask of the newest tick; NaN if it has none",
    "spread": "best ask less best bid; quote currency",
    "spread_bps": "spread over the mid price; basis points",
    "time_since_last_trade": "seconds since the session's last trade before this row; NaN before its first",
    "gap_seconds": "seconds since the product's last event before this row; NaN at its first",
    "session_id": "the Unix second in which the session began",
    "is_warm": "whether the longest window is warm",
    "is_whole": "whether the longest window has no known data loss and no silence of more than 10 s",
}
"""Column of a row before the features → its meaning, in the order of ``ROW_COLUMNS``."""

ROW_COLUMNS: Final = tuple(ROW_MEANINGS)
"""Columns of every feature row before the features."""


class Scope(StrEnum):
    """How many features a set has; each scope includes the one before it."""

    CORE = "core"  # the seven families over the windows
    FULL = "full"  # and the features at a tick and by second
    DEEP = "deep"  # and the last minute second by second

    @classmethod
    def named(cls, text: str) -> Scope:
        """The scope of that name.

        Raises:
            UsageError: there is none.
        """
        if text not in list(cls):
            raise UsageError(f"unknown feature set {text!r}; choose one of {', '.join(cls)}")
        return cls(text)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The families over ``windows`` (seconds, ascending), and the features that ``scope`` adds to them.

    ``leader`` is a product whose volatility is part of every product's rows; it needs the full or the deep scope.

    >>> FeatureSet((30, 60)).names[:3]
    ('log_return_30s', 'log_return_60s', 'realized_volatility_30s')
    """

    windows: tuple[int, ...] = DEFAULT_WINDOWS
    scope: Scope = Scope.CORE
    leader: str | None = None
    names: tuple[str, ...] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        _check_windows(self.windows)
        families = tuple(f"{family.name}_{window}s" for family in FAMILIES for window in self.windows)
        added = self._added()
        lines = [
            f"definition {DEFINITION}",
            *(f"{f.name} [{f.unit}]: {f.meaning}" for f in FAMILIES),
            *families,
            *(f"{f.name} [{f.unit}]: {f.formula}" for f in added),
            *([] if self.leader is None else [f"leader {self.leader}"]),
        ]
        object.__setattr__(self, "names", (*families, *names_of(added)))
        object.__setattr__(self, "digest", _digest("\n".join(lines)))

    def _added(self) -> tuple[Feature, ...]:
        """The features beyond the families, in the kernel's order."""
        if self.scope is Scope.CORE:
            if self.leader is not None:
                raise UsageError("a leader needs the full or the deep feature set, not the core set")
            return ()
        taken = [window for window in self.windows if f"realized_volatility_{window}s" in names_of(BY_SECOND)]
        if taken or self.longest_window < SHORTEST_LONGEST_WINDOW_S:
            raise UsageError(
                f"windows {list(self.windows)} do not fit the {self.scope} feature set: it needs one of at least "
                f"{SHORTEST_LONGEST_WINDOW_S} s and has volatilities of 10, 900 and 3600 s of its own; "
                "choose other windows, or the core feature set"
            )
        leader = () if self.leader is None else LEADER
        return (*AT_TICK, *BY_SECOND, *leader, *(LAGGED if self.scope is Scope.DEEP else ()))

    @classmethod
    def of(cls, windows: Iterable[int], scope: str = Scope.CORE, leader: str | None = None) -> FeatureSet:
        """The set over these windows, given in any order.

        Raises:
            UsageError: unknown scope, or windows that do not fit it.
        """
        return cls(tuple(sorted(set(windows))), Scope.named(scope), leader)

    @property
    def longest_window(self) -> int:
        """The longest window in seconds: a session's rows are warm after that many finished seconds and one."""
        return self.windows[-1]


def names_of(features: Sequence[Feature]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(feature.name for feature in features)


def _digest(text: str) -> str:
    for wording, digested in _DIGEST_WORDINGS.items():
        text = text.replace(wording, digested)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_windows(windows: tuple[int, ...]) -> None:
    if not windows or any(a >= b for a, b in pairwise(windows)) or windows[0] < 1:
        raise UsageError(f"windows must be ascending numbers of seconds, at least 1, got {list(windows)}")
    if windows[-1] > LONGEST_WINDOW_S:
        raise UsageError(f"the longest window can be {LONGEST_WINDOW_S} s, got {windows[-1]} s")
