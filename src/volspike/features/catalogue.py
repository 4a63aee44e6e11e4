"""The features beyond the seven families: names, units, formulas and where they come from, in the kernel's order.

All are free of the product's scale, so that one model serves many products: returns and volatilities are logarithmic,
the rest are shares, times, or ratios to the product's own last hour.

Notation. k is the newest finished second: the one before that of a tick's row, the one at whose end a second's row
stands. r(k) is its log return; a session's first second has none, which counts as 0 in a product of neighbours. E_h[x]
is the exponentially weighted mean of x over the session's finished seconds, its first one aside, with a half-life of h
seconds: weights 2^(−j/h) for the second j before k, divided by their sum. V_w is the standard deviation (ddof 0) of the
last w returns, or of as many as the session has. P(k−q) is the closing price of the session's first second where k−q
lies before it. Σ is taken over the ticks of one second, n is their number. A quotient by 0 is NaN, and so is one by a
mean that decayed below 10⁻²⁰⁰.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HOUR_S: Final = 3600
HALF_LIVES: Final = (10, 30, 60, 300, 600, 1800)
LEAST_LONGEST_WINDOW_S: Final = 60
"""What the longest window must reach for these features: they look back a minute second by second."""

LAGS: Final = 60


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: its unit, what it means, how it is computed and who proposed it.

    ``is_logarithmic`` marks what spreads over orders of magnitude, so that a linear model is given its logarithm.
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
        meaning = "volatility against that of the hour; NaN where the hour stood still"
        yield Feature(f"volatility_ratio_{w}s", "1", meaning, f"V_{w} / V_3600", "", True)
    for h in HALF_LIVES:
        meaning = "exponentially weighted volatility around zero"
        yield Feature(f"ewma_volatility_{h}s", "1", meaning, f"√E_{h}[r²]", _RISKMETRICS, True)
    for h in (10, 60, 300):
        meaning = "exponentially weighted volatility, newest against that of the hour"
        yield Feature(f"ewma_ratio_{h}s", "1", meaning, f"√(E_{h}[r²] / E_1800[r²])", "", True)


def _parts_of_variance() -> Iterator[Feature]:
    for h in (60, 300, 1800):
        meaning = "volatility of the continuous part: what two neighbouring returns share"
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
        yield Feature(f"trend_strength_{h}s", "1", "the trend without its direction", f"|E_{h}[r]| / √E_{h}[r²]")
    for h in (10, 60, 1800):
        meaning = "how much a return turns back (below 0: prices bounce) or goes on"
        yield Feature(f"return_autocorrelation_{h}s", "1", meaning, f"E_{h}[r(k) r(k−1)] / E_{h}[r²]", _ROLL)
    for q in (10, 30, 60):
        meaning = f"volatility of a second as {q}-second returns show it, which bounces do not inflate"
        formula = f"√(E_60[(ln P(k)/P(k−{q}))²] / {q})"
        yield Feature(f"sparse_volatility_{q}s", "1", meaning, formula, _SPARSE, True)
    for q in (10, 30, 60):
        meaning = f"variance of {q}-second returns against that of one-second returns: 1 without memory"
        formula = f"E_300[(ln P(k)/P(k−{q}))²] / ({q} · E_300[r²])"
        yield Feature(f"variance_ratio_{q}s", "1", meaning, formula, _VARIANCE_RATIO, True)
    for h in (60, 1800):
        yield Feature(f"moving_share_{h}s", "1", "share of seconds in which the price changed", f"E_{h}[1(r ≠ 0)]")


def _flows() -> Iterator[Feature]:
    for h in (10, 60, 300):
        meaning = "traded size against that of the hour; NaN where the feed tells none"
        yield Feature(f"volume_ratio_{h}s", "1", meaning, f"E_{h}[Σ size] / E_1800[Σ size]", "", True)
    for h in (10, 60, 300, 1800):
        meaning = "bought less sold by takers, as a share of what was traded; NaN where no side is told"
        formula = f"E_{h}[Σ ±size] / E_{h}[Σ size], of sizes with a side: + bought, − sold"
        yield Feature(f"flow_imbalance_{h}s", "1", meaning, formula)
    for h in (10, 60, 300):
        yield Feature(f"tick_ratio_{h}s", "1", "ticks against those of the hour", f"E_{h}[n] / E_1800[n]", "", True)
    for h in (10, 60, 300):
        meaning = "what joined the bid or left the ask, less the reverse, in mean sizes at the touch a second"
        formula = (
            f"E_{h}[Σ e] / (E_{h}[Σ (q + a)/2] / E_{h}[books]) of ticks telling bid b, ask c, sizes q, a, not both 0; "
            "e = q·1(b ≥ b′) − q′·1(b ≤ b′) − a·1(c ≤ c′) + a′·1(c ≥ c′), ′ the one before, 0 for the session's first"
        )
        yield Feature(f"order_flow_imbalance_{h}s", "1/s", meaning, formula, _OFI)
    meaning = "mean spread against that of the hour; NaN unless that is above 0"
    yield Feature("spread_mean_ratio_60s", "1", meaning, f"{_mean_spread(60)} / ({_mean_spread(1800)})", "", True)


def _mean_spread(h: int) -> str:
    return f"E_{h}[Σ (ask − bid)] / E_{h}[quotes]"


def _clock() -> Iterator[Feature]:
    yield Feature("time_of_day_sin", "1", "phase of the UTC day", "sin(2π (k + 1) / 86 400 s)")
    yield Feature("time_of_day_cos", "1", "phase of the UTC day", "cos(2π (k + 1) / 86 400 s)")
    for minutes in (5, 15, 60):
        meaning = f"from the end of second k to the next full {minutes} minutes"
        formula = f"60·{minutes} − (k + 1) mod (60·{minutes})"
        yield Feature(f"seconds_to_full_{minutes}min", "s", meaning, formula)


def _at_the_tick() -> Iterator[Feature]:
    for h in (1, 10, 60):
        meaning = "decaying rate of ticks"
        formula = f"ln 2/{h} · Σ 2^(−age/{h} s) over the session's ticks, this one too"
        yield Feature(f"decaying_intensity_{h}s", "ticks/s", meaning, formula, _HAWKES, True)
    for h in (1, 10, 60):
        meaning = "decaying rate of ticks against the hour's mean rate"
        yield Feature(f"intensity_ratio_{h}s", "1", meaning, f"decaying_intensity_{h}s / E_1800[n]", "", True)
    meaning = "price where the book would balance, less the mid; NaN without sizes"
    formula = "((bid·ask size + ask·bid size)/(bid size + ask size) − mid) / mid · 10⁴, NaN where both sizes are 0"
    yield Feature("weighted_mid_bps", "basis points", meaning, formula, _MICRO)
    yield Feature(
        "quoted_spread_bps", "basis points", "spread over the mid price now", "(ask − bid) / mid · 10⁴", "", True
    )
    meaning = "spread now against its mean over the hour; NaN unless that is above 0"
    yield Feature("spread_ratio", "1", meaning, f"(ask − bid) / ({_mean_spread(1800)})", "", True)


def _of_leader() -> Iterator[Feature]:
    told = "of the leader at second k, its price carried where its newest tick is older"
    meaning = "volatility of the leading product; NaN until its session is a minute long, and once it is over"
    yield Feature("leader_volatility_60s", "1", meaning, f"V_60 {told}", "", True)
    meaning = "that against the leader's hour"
    yield Feature("leader_volatility_ratio_60s", "1", meaning, f"V_60 / V_3600 {told}", "", True)


def _lags() -> Iterator[Feature]:
    for j in range(1, LAGS + 1):
        meaning = "log return of one of the last finished seconds, 1 the newest"
        yield Feature(f"lag_return_{j}s", "1", meaning, f"r(k + 1 − {j})")
    for j in range(1, LAGS + 1):
        meaning = "ticks of one of the last finished seconds, 1 the newest"
        yield Feature(f"lag_ticks_{j}s", "ticks", meaning, f"n(k + 1 − {j})")


AT_TICK: Final = tuple(_at_the_tick())
"""What every tick changes."""

BY_SECOND: Final = (*_volatilities(), *_parts_of_variance(), *_paths(), *_flows(), *_clock())
"""What changes from second to second only."""

LEADER: Final = tuple(_of_leader())
"""What another product's ticks, as far as they were told before the row, say of its volatility."""

LAGGED: Final = tuple(_lags())
"""The last minute second by second, for models that read a sequence."""

GROUPS: Final = {
    "Now": AT_TICK,
    "Volatility": tuple(_volatilities()),
    "What the variance is made of": tuple(_parts_of_variance()),
    "Paths": tuple(_paths()),
    "Flows": tuple(_flows()),
    "Clock": tuple(_clock()),
    "Leader": LEADER,
    "The last minute": LAGGED,
}
"""All of them as people look for them."""


def names_of(features: Sequence[Feature]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(feature.name for feature in features)
