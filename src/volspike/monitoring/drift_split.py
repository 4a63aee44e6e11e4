"""One feature file as two samples: its older rows as reference, its newer ones as what is looked at."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.market import SECOND_NS
from volspike.monitoring.drift import judgeable
from volspike.monitoring.drift_sample import DriftSample


class ReportType(StrEnum):
    """What is held against what: the early rows against the late ones, or those trained on against those tested on."""

    DATA_DRIFT = "data_drift"
    TRAIN_TEST = "train_test"


SPLIT_RATIOS: Final = {ReportType.DATA_DRIFT: 0.5, ReportType.TRAIN_TEST: 0.85}
"""The share of rows that are reference unless somebody says otherwise; train_test as training divides them."""


def drift_samples(dataset: Dataset, ratio: float, embargo_s: int) -> tuple[DriftSample, DriftSample]:
    """The first ``ratio`` of the rows, and the others less those whose windows reach back over the cut.

    Raises:
        UsageError: a ratio that leaves one of them nothing.
        NotEnoughData: no row lies beyond the embargo.
    """
    if not 0.0 < ratio < 1.0:
        raise UsageError(f"--split-ratio lies between 0 and 1, was {ratio:g}")
    cut = min(max(1, round(ratio * len(dataset))), len(dataset) - 1)
    names = judgeable(dataset.names)
    late = cut + np.flatnonzero(dataset.time[cut:] > dataset.time[cut - 1] + embargo_s * SECOND_NS)
    if len(late) == 0:
        raise NotEnoughData(f"no row lies {embargo_s} s beyond the cut: take a smaller --split-ratio, or record longer")
    return DriftSample.of(dataset, np.arange(cut), names), DriftSample.of(dataset, late, names)
