"""The names of thresholds, with the numbers in them: ``rate_10``, ``cost_25``, ``false_alarms_2_per_hour``."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.evaluation import chosen_thresholds

BEST_F1: Final = "best_f1"
RATE_10: Final = "rate_10"
"""What is served where the threshold asked for does not exist: the one that calls 10 % of the validation rows."""

_RATES: Final = (0.10,)
_COSTS: Final = (10.0,)
_FALSE_ALARMS: Final = (2.0,)

_RATE: Final = re.compile(r"rate_(\d+(?:\.\d+)?)")
_COST: Final = re.compile(r"cost_(\d+(?:\.\d+)?)")
_FALSE_ALARM: Final = re.compile(r"false_alarms_(\d+(?:\.\d+)?)_per_hour")


def check_threshold(name: str) -> None:
    """Refuse a name that stands for no threshold.

    Raises:
        UsageError: it is none.
    """
    rate = _number(_RATE, name)
    told = [number for number in (rate, _number(_COST, name), _number(_FALSE_ALARM, name)) if number is not None]
    is_one = bool(told) and told[0] > 0.0 and f"_{told[0]:g}" in name and (rate is None or rate < 100.0)
    if name != BEST_F1 and not is_one:
        raise UsageError(
            f"no threshold {name!r}; there are best_f1, rate_10 (calls 10 % of rows), cost_10 (a missed spike costs as "
            "much as 10 false alarms) and false_alarms_2_per_hour, with other numbers above 0 as well"
        )


def named_thresholds(
    y: NDArray[np.int8],
    probability: NDArray[np.float64],
    time: NDArray[np.int64],
    product: NDArray[np.int32],
    asked: str,
) -> dict[str, float]:
    """All thresholds by name, chosen on these validation rows, that of the name ``asked`` among them.

    One that does not do what its name says, as where no spike could be caught, is left out; ``rate_10`` always exists.
    """
    rate = _number(_RATE, asked)
    return chosen_thresholds(
        y,
        probability,
        time,
        product,
        rates=_with(_RATES, None if rate is None else rate / 100.0),
        costs=_with(_COSTS, _number(_COST, asked)),
        false_alarms=_with(_FALSE_ALARMS, _number(_FALSE_ALARM, asked)),
    )


def _number(form: re.Pattern[str], name: str) -> float | None:
    found = form.fullmatch(name)
    return float(found[1]) if found else None


def _with(known: tuple[float, ...], more: float | None) -> tuple[float, ...]:
    return known if more is None else tuple(dict.fromkeys((*known, more)))
