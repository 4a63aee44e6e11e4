"""Thresholds chosen on validation rows, and their names: ``rate_10``, ``cost_25``, ``minutes_30_per_day`` and others.

A threshold is halfway between the lowest score that it flags and the next below, so that the last bit of a float, which
may differ between processors, changes no alert.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import SeriesOrder, alarm_runs, spike_runs
from volspike.errors import UsageError
from volspike.evaluation.alarm_budget import AlarmScan
from volspike.evaluation.metrics import MOST_FLAGGED, Cuts

BEST_F1: Final = "best_f1"
CANDIDATES: Final = 300
"""The number of thresholds tried if each needs a pass over the rows, evenly spaced in the logarithm of flagged rows."""


def chosen_thresholds(
    y: NDArray[np.int8],
    score: NDArray[np.float64],
    time: NDArray[np.int64],
    product: NDArray[np.int32],
    requested: str = BEST_F1,
) -> dict[str, float]:
    """The usual thresholds and the ``requested`` one by name, chosen on n validation rows (at least one).

    ``rate_{percent}`` and ``minutes_{number}_per_day`` always exist, the others only if they catch a spike.
    """

    def numbers(form: re.Pattern[str], usual: float) -> list[float]:
        own = _number(form, requested)
        return [usual] if own is None or own == usual else [usual, own]

    chosen = {
        BEST_F1: best_f1_threshold(y, score),
        **{f"rate_{percent:g}": rate_threshold(score, percent / 100.0) for percent in numbers(_RATE, 10.0)},
        **{f"cost_{ratio:g}": cost_threshold(y, score, ratio) for ratio in numbers(_COST, 10.0)},
        **{
            f"false_alarms_{most:g}_per_hour": false_alarm_threshold(y, score, time, product, most)
            for most in numbers(_FALSE_ALARM, 2.0)
        },
        **{
            f"minutes_{most:g}_per_day": alarm_minutes_threshold(score, time, product, most)
            for most in numbers(_MINUTE, 30.0)
        },
    }
    return {name: threshold for name, threshold in chosen.items() if threshold is not None}


def best_f1_threshold(y: NDArray[np.int8], score: NDArray[np.float64]) -> float | None:
    """The threshold with the greatest F1 that flags at most half of the rows; the highest of equally good ones.

    None if no such threshold catches a spike.
    """
    cuts = Cuts.of(y, score)
    called = cuts.hits + cuts.false_alarms
    f1 = np.where(called <= MOST_FLAGGED * len(y), 2 * cuts.hits / np.maximum(called + cuts.spikes, 1), 0.0)
    if not np.any(f1 > 0.0):
        return None
    return cuts.threshold(int(np.argmax(f1)))


def rate_threshold(score: NDArray[np.float64], rate: float = 0.10) -> float:
    """The lowest threshold that flags at most a share ``rate`` of the rows; ``score`` must not be empty.

    If more rows than that have the highest score, it is above that score and flags none.
    """
    cuts = Cuts.of(np.zeros(len(score), np.int8), score)
    within = np.flatnonzero(cuts.false_alarms <= rate * len(score))
    return cuts.threshold(int(within[-1])) if len(within) else float(np.nextafter(cuts.score[0], np.inf))


def cost_threshold(y: NDArray[np.int8], score: NDArray[np.float64], ratio: float) -> float | None:
    """The threshold with the least cost that flags at most half of the rows; the highest of equally cheap ones.

    A missed spike row costs ``ratio`` times a flagged calm row. None if flagging nothing is cheapest.
    """
    cuts = Cuts.of(y, score)
    allowed = cuts.hits + cuts.false_alarms <= MOST_FLAGGED * len(y)
    cost = ratio * (cuts.spikes - cuts.hits) + cuts.false_alarms
    cost = np.where(allowed, cost, np.inf)
    if not np.any(cost < ratio * cuts.spikes):
        return None
    return cuts.threshold(int(np.argmin(cost)))


def false_alarm_threshold(
    y: NDArray[np.int8],
    score: NDArray[np.float64],
    time: NDArray[np.int64],
    product: NDArray[np.int32],
    most_per_hour: float,
) -> float | None:
    """The lowest threshold with at most ``most_per_hour`` false alarm episodes per covered hour of a product.

    ``CANDIDATES`` cuts that flag at most half of the rows are tried; alarms must be open for at most half of the time.
    None if no such threshold catches a spike event. See ``volspike.evaluation.spike_events``.
    """
    series = SeriesOrder.of(time, product)
    spikes, seconds = spike_runs(series, y), series.seconds()
    best = None
    for threshold in _candidates(score):
        alarms = alarm_runs(series, score, threshold)
        false = int(np.count_nonzero(alarms.first_overlap(spikes) < 0))
        in_force = float(seconds[alarms.mask(len(score))].sum())
        if (
            len(alarms) > false
            and false * 3600.0 <= most_per_hour * seconds.sum()
            and in_force <= MOST_FLAGGED * seconds.sum()
        ):
            best = threshold
    return best


def alarm_minutes_threshold(
    score: NDArray[np.float64],
    time: NDArray[np.int64],
    product: NDArray[np.int32],
    most_per_day: float,
    may_open: NDArray[np.bool_] | bool = True,
) -> float:
    """The threshold with at most ``most_per_day`` minutes of alarm per covered day of a product.

    ``may_open`` is of each row (n,) or of all: whether an alarm may open at it.
    It is the lowest one before the first, from the highest score down, that exceeds the budget. If the highest score
    does already, the threshold is above it and flags none. See ``volspike.evaluation.alarm_budget``.
    """
    series = SeriesOrder.of(time, product)
    scan = AlarmScan(series, series.seconds(), score, may_open)
    return scan.threshold(scan.cut_within(most_per_day))


def _candidates(score: NDArray[np.float64]) -> list[float]:
    """Thresholds between distinct scores, from the highest down."""
    cuts = Cuts.of(np.zeros(len(score), np.int8), score)
    return [cuts.threshold(at) for at in cuts.spread(CANDIDATES, MOST_FLAGGED)]


RATE_10: Final = "rate_10"
"""The threshold that flags 10 % of the validation rows, served if the requested one does not exist."""

_RATE: Final = re.compile(r"rate_(\d+(?:\.\d+)?)")
_COST: Final = re.compile(r"cost_(\d+(?:\.\d+)?)")
_FALSE_ALARM: Final = re.compile(r"false_alarms_(\d+(?:\.\d+)?)_per_hour")
_MINUTE: Final = re.compile(r"minutes_(\d+(?:\.\d+)?)_per_day")
_FORMS: Final = (_RATE, _COST, _FALSE_ALARM, _MINUTE)


def check_threshold(name: str) -> None:
    """Refuses a name that is no threshold.

    Raises:
        UsageError: the name is invalid.
    """
    rate = _number(_RATE, name)
    numbers = [number for form in _FORMS if (number := _number(form, name)) is not None]
    is_one = bool(numbers) and numbers[0] > 0.0 and f"_{numbers[0]:g}" in name and (rate is None or rate < 100.0)
    if name != BEST_F1 and not is_one:
        raise UsageError(
            f"no threshold {name!r}; there are best_f1, rate_10 (flags 10 % of rows), cost_10 (a missed spike costs as "
            "much as 10 false alarms), false_alarms_2_per_hour and minutes_30_per_day (at most 30 minutes of alarm per "
            "day), with other numbers above 0 as well"
        )


def _number(form: re.Pattern[str], name: str) -> float | None:
    found = form.fullmatch(name)
    return float(found[1]) if found else None
