"""``Contrast``: one figure of a model and of a baseline on the same rows, their difference and their ratio."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import Interval, percentile_interval
from volspike.evaluation.metrics import known


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A figure of model and baseline, with 95 % intervals of both, of the difference and of the ratio; or NaN.

    The difference and the ratio are taken resample by resample, so that what moves both alike widens neither.
    """

    model: float
    baseline: float
    model_interval: Interval
    baseline_interval: Interval
    gain_interval: Interval
    ratio_interval: Interval

    @property
    def gain(self) -> float:
        """The model's figure minus the baseline's."""
        return self.model - self.baseline

    @property
    def ratio(self) -> float:
        """The model's figure over the baseline's; NaN for a baseline of 0."""
        return self.model / self.baseline if self.baseline else nan

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined; an interval's ends as ``<figure>_low`` and ``_high``."""
        figures: dict[str, int | float | None] = {}
        for name, value, interval in (
            ("model", self.model, self.model_interval),
            ("baseline", self.baseline, self.baseline_interval),
            ("gain", self.gain, self.gain_interval),
            ("ratio", self.ratio, self.ratio_interval),
        ):
            figures |= {name: known(value), f"{name}_low": known(interval.low), f"{name}_high": known(interval.high)}
        return figures


def contrast(
    model: float, baseline: float, model_drawn: NDArray[np.float64], baseline_drawn: NDArray[np.float64]
) -> Contrast:
    """The contrast of two figures, whose values on the same r resamples are (r,), NaN where undefined."""
    ratio = np.full(len(model_drawn), nan)
    np.divide(model_drawn, baseline_drawn, out=ratio, where=baseline_drawn > 0.0)
    return Contrast(
        model=model,
        baseline=baseline,
        model_interval=percentile_interval(model_drawn),
        baseline_interval=percentile_interval(baseline_drawn),
        gain_interval=percentile_interval(model_drawn - baseline_drawn),
        ratio_interval=percentile_interval(ratio),
    )
