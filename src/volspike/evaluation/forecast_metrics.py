"""Quality of a forecast of volatility itself: QLIKE and R² of its logarithm, compared with a baseline.

The realized volatility of a minute is a noisy measure of the market's true one. QLIKE is one of the few losses whose
ranking of forecasts that noise does not change in expectation (Patton, "Volatility forecast comparison using imperfect
volatility proxies", Journal of Econometrics 160, 2011). It is least for the root of the expected variance, which is
above the median of a skewed distribution. R² is of the location of ln v, for which the median is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import Contrast, Draws, contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastComparison:
    """QLIKE (lower is better, 0 is perfect) and R² of ln v (1 is perfect, 0 is the mean) over ``rows`` rows."""

    rows: int
    qlike: Contrast
    r_squared: Contrast

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined."""
        named = (("qlike", self.qlike), ("r_squared", self.r_squared))
        return {"rows": self.rows} | {
            f"{figure}_{name}": value for figure, found in named for name, value in found.figures().items()
        }


def qlike_losses(volatility: NDArray[np.float64], forecast: NDArray[np.float64]) -> NDArray[np.float64]:
    """v²/f² − ln(v²/f²) − 1 of each row; both arrays are above 0.

    The loss is homogeneous of degree 0, so that calm and volatile times, and products of any scale, count alike.
    """
    ratio = np.square(volatility / forecast)
    losses: NDArray[np.float64] = ratio - np.log(ratio) - 1.0
    return losses


def r_squared(log_volatility: NDArray[np.float64], forecast: NDArray[np.float64]) -> float:
    """1 − Σ(x − f)² / Σ(x − x̄)²; below 0 for a forecast worse than the mean, NaN if all x are equal."""
    spread = float(np.sum(np.square(log_volatility - log_volatility.mean()))) if len(log_volatility) else 0.0
    return 1.0 - float(np.sum(np.square(log_volatility - forecast))) / spread if spread > 0.0 else nan


def compare_forecasts(
    volatility: NDArray[np.float64], model: NDArray[np.float64], baseline: NDArray[np.float64], draws: Draws
) -> ForecastComparison:
    """Two forecasts (n,) of the realized volatility (n,); ``draws`` are of the n rows.

    Rows in which one of the three is not above 0 are left out: a minute without any change of price has volatility 0,
    whose logarithm is infinite.
    """
    known = np.minimum(np.minimum(volatility, model), baseline) > 0.0
    rows = int(known.sum())
    v, forecasts = volatility[known], [forecast[known] for forecast in (model, baseline)]
    logs = np.log(v)
    centred = logs - (logs.mean() if rows else 0.0)
    errors = [np.square(logs - np.log(forecast)) for forecast in forecasts]
    losses = [qlike_losses(v, forecast) for forecast in forecasts]
    columns = np.zeros((len(volatility), 7))
    columns[known] = np.column_stack([np.ones(rows), centred, np.square(centred), *errors, *losses])
    count, total, squares, *sums = draws.sums(columns).T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = squares - np.square(total) / count
        r_squared_drawn = [np.where(spread > 0.0, 1.0 - error / spread, nan) for error in sums[:2]]
        qlike_drawn = [loss / count for loss in sums[2:]]
    means = [float(loss.mean()) if rows else nan for loss in losses]
    fits = [r_squared(logs, np.log(forecast)) for forecast in forecasts]
    return ForecastComparison(
        rows=rows,
        qlike=contrast(means[0], means[1], *qlike_drawn),
        r_squared=contrast(fits[0], fits[1], *r_squared_drawn),
    )
