"""Rows on the two sides of a cut in time that know nothing of each other.

A label looks forward over the horizon, features look back over their windows, so rows near a cut share prices. Of the
earlier side those rows are purged whose label is not told before the later side begins to look, an embargo before its
first row (M. López de Prado, Advances in Financial Machine Learning, 2018, chapter 7). The later side keeps all of its
rows: what is judged is never thinned out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import Dataset
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS

Rows: TypeAlias = NDArray[np.int64]

HORIZON_NS: Final = (HORIZON_S + 1) * SECOND_NS
"""How far a label looks: 60 seconds after the end of the row's own."""

FIRST_PRICE_NS: Final = 2 * SECOND_NS
"""A window's first return starts at the last price of the second before it, and the row's own second counts as well."""


def look_back_s(names: Iterable[str]) -> int:
    """The seconds that the columns look back: the greatest number of seconds in a name.

    An exponential mean has no end and is taken with its half-life: what it remembers of older prices grows faint.

    >>> look_back_s(["spread_mean_60s", "realized_volatility_3600s", "time_of_day_sin"])
    3600
    """
    told = (re.search(r"_(\d+)s$", name) for name in names)
    return max((int(match[1]) for match in told if match), default=0)


def first_look(dataset: Dataset, rows: Rows, embargo_s: int) -> int:
    """The earliest moment (ns) that ``rows`` look back to: an embargo before them, or where their session began.

    A session's windows start anew, so that none reaches into the session before.
    """
    reach = dataset.time[rows] - (embargo_s * SECOND_NS + FIRST_PRICE_NS)
    return int(np.maximum(reach, dataset.session[rows] * SECOND_NS).min())


def told_before(dataset: Dataset, rows: Rows, moment: int) -> Rows:
    """Those of ``rows`` whose label is told before ``moment`` (ns)."""
    return rows[dataset.time[rows] + HORIZON_NS < moment]


def purged(dataset: Dataset, earlier: Rows, later: Rows, embargo_s: int) -> Rows:
    """Those of ``earlier`` whose label is told before ``later`` begins to look; none where there is no later row."""
    if len(later) == 0:
        return earlier[:0]
    return told_before(dataset, earlier, first_look(dataset, later, embargo_s))
