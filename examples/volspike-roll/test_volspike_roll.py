"""The feature against a slow version that reads all seconds of a session again for every row."""

import numpy as np
from volspike_roll import DECAY, LEAST_SECONDS, ROLL

from volspike.testing import check_feature


def slow_roll(seconds):
    """The column of one session, given its inputs by name."""
    price = seconds["price"]
    spread = np.full(len(price), np.nan)
    for k in range(LEAST_SECONDS - 1, len(price)):
        returns = np.diff(np.log(price[: k + 1]))
        products = returns[1:] * returns[:-1]
        weight = DECAY ** np.arange(len(products))[::-1]
        spread[k] = 2e4 * np.sqrt(max(0.0, -np.average(products, weights=weight)))
    return {"spread_bps": spread}


def test_the_feature_is_that_of_the_slow_version():
    """Values, restarts, later ticks and missing quotes, on random tapes."""
    check_feature(ROLL, slow_roll)
