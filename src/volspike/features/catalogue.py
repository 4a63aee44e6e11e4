"""Features beyond the seven families, in the kernel's order: names, units, formulas and sources.

They are independent of a product's scale, so one model serves many products: returns and volatilities are logarithmic,
the rest are shares, times, or ratios to the product's own last hour or day.

Notation of the formulas. k is the newest finished second: for a row at a tick, the second before the tick's; for a row
at the end of a second, that second. r(k) is its log return; a session's first second has none, which counts as 0 in a
product of neighbours. E_h[x] is the exponentially weighted mean of x over the session's finished seconds without its
first one, with a half-life of h seconds: weights 2^(−j/h) for the second j before k, divided by their sum. V_w is the
standard deviation (ddof 0) of the last w returns, or of as many as the session has. P(k−q) is the closing price of the
session's first second if k−q lies before it. Σ is taken over the ticks of one second, n is their number. A quotient by
0 is NaN, and so is one by a mean that decayed below 10⁻²⁰⁰.

R_w is the log of the highest over the lowest price of the last w seconds and the price before them; if the session has
fewer, their number replaces w in its formulas. c is the log return between the ends of two cells of 100 ms in which the
price changed, d that from tick to tick, both within the second and from the price before it. D is the mean of r² over
the last 24 h in bins of five minutes without the current one; Y that over four bins of yesterday: that of second k a
day ago, one before and two after it. Both outlive sessions, without an earlier session's last second, and need 3600 and
300 s of data.

L(k) is the leader's closing price of second k, carried from its newest tick; it is unknown before the leader's session
and after 300 s of its silence. All features of the leader are NaN until it is known for a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from volspike.features.kernel.layout import HALF_LIVES, LAGS, LEADER_RETURNS_S


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

    @property
    def needs(self) -> Supply:
        """The data that a source must send for it."""
        return next((supply for supply, names in _SUPPLY.items() if self.name.startswith(names)), Supply.PRICES)

    @property
    def counts_ticks(self) -> bool:
        """Whether its level depends on the number of ticks, which differs between quotes and trades."""
        return self.name.startswith(_COUNTING)


class Supply(StrEnum):
    """Data of a source that features are computed from."""

    PRICES = "prices"
    QUOTES = "quotes"
    TRADES = "trade sizes"


_SUPPLY: Final = {
    Supply.QUOTES: (
        "order_flow_imbalance_", "spread_mean_ratio_", "weighted_mid_bps", "quoted_spread_bps", "spread_ratio",
    ),
    Supply.TRADES: ("volume_ratio_", "flow_imbalance_"),
}  # fmt: skip
_COUNTING: Final = (
    "tick_ratio_", "decaying_intensity_", "intensity_ratio_", "tick_volatility_ratio_", "tick_signature_", "lag_ticks_",
    "order_flow_imbalance_",
)  # fmt: skip


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
_LEAD_LAG = "Hoffmann, Rosenbaum, Yoshida, Bernoulli 19 (2013)"
_HAWKES = "Hawkes, Biometrika 58 (1971)"
_PARKINSON = "Parkinson, J. Business 53 (1980)"
_GARMAN_KLASS = "Garman, Klass, J. Business 53 (1980)"
_LEE_MYKLAND = "Lee, Mykland, Review of Financial Studies 21 (2008)"
_QUARTICITY = "Barndorff-Nielsen, Shephard, J. Royal Statistical Society B 64 (2002)"
_VOV = "Corsi, Mittnik, Pigorsch, Pigorsch, Econometric Reviews 27 (2008)"
_PERIODICITY = "Andersen, Bollerslev, J. Empirical Finance 4 (1997)"
_DURATION = "Engle, Russell, Econometrica 66 (1998)"


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


def _ranges() -> Iterator[Feature]:
    for w in (10, 60, 300):
        meaning = "volatility estimated from the highest and lowest price of the window, relative to that of the hour"
        formula = f"R_{w} / √(4 ln 2 · {w}) / V_3600"
        yield Feature(f"parkinson_ratio_{w}s", "1", meaning, formula, _PARKINSON, True)
    for w in (10, 60, 300):
        meaning = "the same from high, low, first and last price"
        formula = f"√((R_{w}²/2 − (2 ln 2 − 1) ln²(P(k)/P(k−{w}))) / {w}) / V_3600"
        yield Feature(f"garman_klass_ratio_{w}s", "1", meaning, formula, _GARMAN_KLASS, True)
    for w in (10, 60, 300):
        meaning = "volatility estimated from the range relative to that of one-second returns: low where prices bounce"
        yield Feature(f"range_efficiency_{w}s", "1", meaning, f"R_{w} / √(4 ln 2 · {w}) / V_{w}", _PARKINSON, True)
    for w in (10, 60, 300):
        meaning = "place of the price in the window's range: 0 in the middle, 1 at the highest or lowest price"
        formula = "|ln(P(k)/high) + ln(P(k)/low)| / R_" + str(w)
        yield Feature(f"range_position_{w}s", "1", meaning, formula)


def _tails() -> Iterator[Feature]:
    for w in (60, 300, 900):
        meaning = "largest absolute one-second return relative to the volatility of the last hour"
        yield Feature(
            f"largest_return_{w}s", "1", meaning, f"max |r| of the last {w} seconds / V_3600", _LEE_MYKLAND, True
        )
    for h in (60, 300, 1800):
        meaning = "kurtosis of the one-second returns around zero: 3 for normal returns of constant volatility"
        yield Feature(f"return_kurtosis_{h}s", "1", meaning, f"E_{h}[r⁴] / E_{h}[r²]²", _QUARTICITY, True)
    for h in (60, 300, 1800):
        meaning = "standard deviation of the log of a short variance, over the seconds since the first price change"
        formula = f"√(E_{h}[x²] − E_{h}[x]²), x = ln E_10[r²] where that is above 10⁻²⁰⁰"
        yield Feature(f"volatility_of_volatility_{h}s", "1", meaning, formula, _VOV)


def _within_seconds() -> Iterator[Feature]:
    for h in (10, 60, 300):
        meaning = "volatility of 100 ms returns relative to that of the last hour"
        yield Feature(f"subsecond_ratio_{h}s", "1", meaning, f"√(E_{h}[Σ c²] / E_1800[Σ c²])", _SPARSE, True)
    for h in (60, 300):
        meaning = "volatility of 100 ms returns relative to that of one-second returns: above 1 where prices bounce"
        yield Feature(f"subsecond_signature_{h}s", "1", meaning, f"√(E_{h}[Σ c²] / E_{h}[r²])", _SPARSE, True)
    for h in (10, 60, 300):
        meaning = "volatility of returns from tick to tick relative to that of the last hour"
        yield Feature(f"tick_volatility_ratio_{h}s", "1", meaning, f"√(E_{h}[Σ d²] / E_1800[Σ d²])", _SPARSE, True)
    for h in (60, 300):
        meaning = "volatility of returns from tick to tick relative to that of one-second returns"
        yield Feature(f"tick_signature_{h}s", "1", meaning, f"√(E_{h}[Σ d²] / E_{h}[r²])", _SPARSE, True)
    yield Feature(
        "seconds_since_change",
        "s",
        "time from the last tick at another price, or from the session's first, to the end of second k",
        "k + 1 − its time",
        _DURATION,
        True,
    )


def _day() -> Iterator[Feature]:
    meaning = "volatility of the last hour relative to that of the last day; NaN until an hour of it is known"
    yield Feature("hour_to_day_ratio", "1", meaning, "√(E_1800[r²] / D)", _PERIODICITY, True)
    meaning = "volatility at this time yesterday relative to that of the last day; NaN if it is not known"
    yield Feature("yesterday_to_day_ratio", "1", meaning, "√(Y / D)", _PERIODICITY, True)
    meaning = "volatility at this time yesterday relative to that of the last hour"
    yield Feature("yesterday_to_hour_ratio", "1", meaning, "√(Y / E_1800[r²])", _PERIODICITY, True)


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
    yield Feature("leader_volatility_ratio_10s", "1", meaning, f"V_10 / V_3600 {at}", "", True)
    for q in LEADER_RETURNS_S:
        yield Feature(f"leader_return_{q}s", "1", "log return of the leader", f"ln(L(k) / L(k−{q}))", _LEAD_LAG)
    meaning = "price over the leader's, less its mean of the last hour, in which a constant exchange rate cancels"
    formula = "10⁴ · (x(k) − E_1800[x]), x = ln(P/L) in the seconds in which L is known"
    yield Feature("leader_difference_bps", "basis points", meaning, formula, _LEAD_LAG)
    meaning = "change of the price over the leader's in ten seconds"
    yield Feature("leader_difference_change_10s", "basis points", meaning, "10⁴ · (x(k) − x(k−10))", _LEAD_LAG)


def _lags() -> Iterator[Feature]:
    for j in range(1, LAGS + 1):
        meaning = "log return of one of the last finished seconds; 1 is the newest"
        yield Feature(f"lag_return_{j}s", "1", meaning, f"r(k + 1 − {j})")
    for j in range(1, LAGS + 1):
        meaning = "ticks of one of the last finished seconds; 1 is the newest"
        yield Feature(f"lag_ticks_{j}s", "ticks", meaning, f"n(k + 1 − {j})")


AT_TICK: Final = tuple(_at_the_tick())
"""Features that change with every tick."""

BY_SECOND: Final = (
    *_volatilities(),
    *_parts_of_variance(),
    *_paths(),
    *_flows(),
    *_clock(),
    *_ranges(),
    *_tails(),
    *_within_seconds(),
    *_day(),
)
"""Features that change only from second to second."""

LEADER: Final = tuple(_of_leader())
"""Features of another product, possibly at another venue, computed from its ticks before the row."""

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
    "Ranges": tuple(_ranges()),
    "Tails": tuple(_tails()),
    "Within seconds": tuple(_within_seconds()),
    "Day": tuple(_day()),
    "Leader": LEADER,
    "The last minute": LAGGED,
}
"""The same features by subject, for the documentation."""


def names_of(features: Sequence[Feature]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(feature.name for feature in features)
