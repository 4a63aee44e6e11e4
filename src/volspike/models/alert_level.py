"""The alert threshold that holds a budget of alarm minutes per day.

A threshold that was right in training is wrong on the next market, and on the next day of the same one. ``AlertLevel``
tracks the quantile of a product's own probabilities at which alarms use the budget: while an alert is open the
threshold rises, otherwise it falls,

    θ ← θ + RATE · (open − budget) · seconds,        θ = ln(threshold / (1 − threshold)),

where ``open`` is 1 or 0 and ``budget`` is a share of the time. Over T seconds the share of time in alarm then differs
from the budget by at most (range of θ) / (RATE · T), whatever the probabilities do: Gibbs, Candès, "Adaptive conformal
inference under distribution shift" (2021), proposition 4.1. At the default rate an alert of one minute raises the odds
of the threshold by two fifths, and 48 minutes without one lower them as much.

Minutes of an alert that opens after its spike has begun warn of nothing, so under a budget none opens in such a row,
and the minutes are left for spikes to come.

One function serves live rows (``AlertLevel``) and recorded ones (``alert_levels``), with the same bits.
"""

from __future__ import annotations

from math import exp
from typing import Final

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from volspike.compiled import compiled, internal
from volspike.episodes import (
    CAP_S,
    HOLD_S,
    HORIZON_NS,
    IDLE,
    NEVER,
    QUIET_S,
    RELEASE_SHARE,
    UNKNOWN_S,
    SeriesOrder,
    next_state,
)
from volspike.errors import UsageError
from volspike.market import SECOND_NS

BUDGET_MINUTES: Final = 30.0
"""The default budget: minutes of alarm per day of a product."""

RATE: Final = 0.006
"""The change of the log odds per second. Half of it lets single days exceed one and a half times the budget; twice as
much raises the threshold by so much at one alert that the next spike is missed."""

LOWEST: Final = -12.0
HIGHEST: Final = 4.0
"""Limits of the log odds, so that a market without a single alert, or with one that never ends, is left soon."""

DAY_MINUTES: Final = 1440.0


class AlertLevel:
    """The alert threshold of one product's live rows.

    Args:
        log_odds: of the first threshold.
        budget_minutes: of alarm per day.

    Raises:
        UsageError: a budget that is not between 0 and a day.
    """

    def __init__(self, log_odds: float, budget_minutes: float = BUDGET_MINUTES) -> None:
        self._budget = budget_share(budget_minutes)
        self._log_odds = log_odds
        self._newest = NEVER

    def update(self, time_ns: int, *, is_open: bool) -> float:
        """The threshold for a row at ``time_ns``; ``is_open`` is whether an alert was open after the row before it.

        Call it for rows whose probability is known, in time order; an earlier time leaves the threshold as it is.
        """
        self._log_odds = float(_step(self._log_odds, self._newest, time_ns, is_open, self._budget))
        self._newest = max(self._newest, time_ns)
        return self.threshold

    @property
    def threshold(self) -> float:
        """The present threshold, a probability."""
        return float(_threshold(self._log_odds))

    def state(self) -> tuple[float, int]:
        """All that later thresholds depend on."""
        return self._log_odds, self._newest

    def resume(self, state: tuple[float, int]) -> None:
        """Continues from a saved state."""
        self._log_odds, self._newest = state


def budget_share(minutes: float) -> float:
    """The share of the time that a budget of alarm minutes per day is.

    Raises:
        UsageError: it is not between 0 and a day.
    """
    if not 0.0 < minutes < DAY_MINUTES:
        raise UsageError(f"a budget of alarm minutes per day must be above 0 and below 1440, was {minutes:g}")
    return minutes / DAY_MINUTES


def alert_levels(
    series: SeriesOrder,
    probability: NDArray[np.float64],
    log_odds: float,
    budget_minutes: float = BUDGET_MINUTES,
    may_open: NDArray[np.bool_] | bool = True,
) -> NDArray[np.float64]:
    """(n,) the thresholds that ``AlertLevel`` would have had at recorded rows.

    ``episodes.alarm_runs`` at these thresholds gives the alerts that would have been sent.

    Args:
        series: the order of the rows; every series begins at ``log_odds``.
        probability: (n,) in the rows' order; NaN where it is unknown.
        log_odds: of the first threshold.
        budget_minutes: of alarm per day.
        may_open: of each row (n,) in the rows' order or of all: whether an alert may open.

    Raises:
        UsageError: a budget that is not between 0 and a day.
    """
    spans = [round(span * SECOND_NS) for span in (HOLD_S, QUIET_S, UNKNOWN_S, CAP_S)]
    budget = budget_share(budget_minutes)
    levels = np.empty(len(series.time))
    order, opens = series.order, np.broadcast_to(may_open, probability.shape)
    levels[order] = _levels(series.time, probability[order], opens[order], series.begins, log_odds, budget, *spans)
    return levels


register_jitable(next_state)


@internal
def _advance(log_odds: float, newest: int, now: int, is_open: bool, budget: float) -> float:
    if newest == NEVER or not 0 < now - newest < HORIZON_NS:  # no row covers a longer silence
        return log_odds
    change = RATE * ((1.0 if is_open else 0.0) - budget) * ((now - newest) / SECOND_NS)
    return min(max(log_odds + change, LOWEST), HIGHEST)


@internal
def _to_probability(log_odds: float) -> float:
    return 1.0 / (1.0 + exp(-log_odds))


@compiled
def _step(log_odds: float, newest: int, now: int, is_open: bool, budget: float) -> float:
    return _advance(log_odds, newest, now, is_open, budget)


@compiled
def _threshold(log_odds: float) -> float:
    return _to_probability(log_odds)


@compiled
def _levels(
    time: NDArray[np.int64],
    probability: NDArray[np.float64],
    may_open: NDArray[np.bool_],
    begins: NDArray[np.bool_],
    first: float,
    budget: float,
    hold: int,
    quiet: int,
    unknown: int,
    cap: int,
) -> NDArray[np.float64]:
    levels = np.empty(len(time))
    log_odds, newest, state = first, NEVER, IDLE
    for row in range(len(time)):
        if begins[row]:
            log_odds, newest, state = first, NEVER, IDLE
        if np.isfinite(probability[row]):
            log_odds = _advance(log_odds, newest, time[row], state[0] != NEVER, budget)
            newest = time[row]
        level = _to_probability(log_odds)
        levels[row] = level
        low, opens = RELEASE_SHARE * level, may_open[row]
        state = next_state(state, time[row], probability[row], opens, level, low, hold, quiet, unknown, cap)
    return levels
