"""Gradient-boosted trees by LightGBM, on what a linear forecast of volatility leaves unexplained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from lightgbm import Booster, Dataset, train
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from volspike.models.columns import without_lags
from volspike.models.detector import Trial
from volspike.models.forecast import LinearForecast, filled_volatilities, log_target, reaching
from volspike.models.graph import INPUT, OPSET
from volspike.models.nodes import Nodes
from volspike.models.rows import TrainingRows, as_single, score_complete, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.single_trees import in_single

THREADS: Final = 2
THREADED_ROWS: Final = 50_000

_DEFAULTS: Final = {
    "rounds": 150,
    "leaves": 31,
    "learning_rate": 0.03,
    "row_share": 0.3,
    "column_share": 0.2,
    "leaf_rows": 2000,
    "shrinkage": 0.05,
}
_LEAST_COLUMNS: Final = 6
"""Each tree sees at least so many columns, where there are so many: a fifth of ten would be two."""


class LightGBM:
    """A ridge regression of the logarithm of volatility, trees on its residual, and a curve into a probability.

    How steep the curve is follows from the errors on rows that the forecaster had not seen: each half of the training
    time is forecast by one of the other half. Missing values have a branch in the trees; the volatilities of the linear
    part must be there, and a row that misses one of them cannot be scored.

    Settings: ``rounds`` and ``leaves`` of trees, their ``learning_rate``, the shares of rows and columns that each
    tree sees, ``leaf_rows``, the fewest in a leaf, less where there are few rows, and ``shrinkage``, the L2 penalty
    on a leaf in parts of the fewest rows.
    """

    name: ClassVar[str] = "lightgbm"
    accepts_missing: ClassVar[bool] = True
    is_baseline: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        self._seed = seed
        self._settings = settings_over(_DEFAULTS, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """All but the second-by-second ones."""
        return without_lags(offered)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """How many trees of which size, and how much a leaf generalises."""
        return {
            "rounds": trial.suggest_int("rounds", 50, 400, log=True),
            "leaves": trial.suggest_int("leaves", 7, 63, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
            "column_share": trial.suggest_float("column_share", 0.1, 0.6),
            "leaf_rows": trial.suggest_int("leaf_rows", 500, 5000, log=True),
        }

    def fit(self, sample: Sample) -> Self:
        """Learn from the rows that have the volatilities of the linear part."""
        chosen = filled_volatilities(as_single(sample.x), sample.names)
        rows = training_rows(sample, accepts_missing=True, needed=[sample.names.index(name) for name in chosen])
        target = log_target(rows.volatility, sample.tau)
        forecaster = _Forecaster(sample.names, chosen, self._settings, self._seed)
        self._curve = reaching(target - _crossed(forecaster, rows, target), rows.weight)
        self._forecast = forecaster.fit(rows.x, target, rows.weight)
        self._importance = self._forecast.importance(rows.x)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a volatility of the linear part."""
        return score_complete(x, lambda rows: self._curve(self._forecast(rows)), self._forecast.linear.needed)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the variance over training rows of the linear part and of the trees.

        The linear part's is divided by absolute coefficients, the trees' by the gain of the splits on each feature.
        """
        return self._importance

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """Linear part, trees and curve as one graph."""
        width = len(self._importance)
        nodes = Nodes(width)
        inputs = [(INPUT, FloatTensorType([None, width]))]
        converted = convert_lightgbm(self._forecast.trees, "volspike", inputs, target_opset=OPSET)
        residual = nodes.take(converted, converted.graph.output[0].name)
        alone = nodes.add("Squeeze", nodes.in_double(residual), np.array([1]))
        forecast = nodes.add("Add", alone, self._forecast.linear.to_nodes(nodes))
        return nodes.served_curve(forecast, self._curve)


@dataclass(frozen=True, slots=True, eq=False)
class _Forecast:
    """The logarithm of volatility over τ: the linear part and the trees' correction."""

    linear: LinearForecast
    trees: Booster

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.linear(x) + np.asarray(self.trees.predict(x, num_threads=1), np.float64)

    def importance(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        linear = np.zeros(x.shape[1])
        linear[self.linear.needed] = np.abs(self.linear.coefficients)
        gain = np.asarray(self.trees.feature_importance("gain"), np.float64)
        parts = np.array([np.var(self.linear(x)), np.var(self.trees.predict(x, num_threads=1))])
        told = [part * shares(weight) for part, weight in zip(parts, (linear, gain), strict=True) if weight.any()]
        return shares(np.sum(told, axis=0) if told else np.zeros(x.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Forecaster:
    names: tuple[str, ...]
    chosen: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int

    def fit(self, x: NDArray[np.float32], target: NDArray[np.float64], weight: NDArray[np.float64]) -> _Forecast:
        linear = LinearForecast.fit(x, self.names, self.chosen, target, weight)
        data = Dataset(x, target - linear(x), weight=weight)
        trees = train(self._parameters(*x.shape), data, self.settings["rounds"])
        return _Forecast(linear, in_single(trees))

    def _parameters(self, rows: int, width: int) -> dict[str, Any]:
        # Rows of one minute share their future: a leaf of a few hundred among many may be a single event.
        leaf_rows = min(self.settings["leaf_rows"], max(5, rows // 10))
        return {
            "objective": "regression",
            "num_leaves": self.settings["leaves"],
            "learning_rate": self.settings["learning_rate"],
            "min_data_in_leaf": leaf_rows,
            "lambda_l2": self.settings["shrinkage"] * leaf_rows,
            "feature_fraction": min(1.0, max(self.settings["column_share"], _LEAST_COLUMNS / width)),
            "bagging_fraction": self.settings["row_share"],
            "bagging_freq": 1,
            "max_bin": 63,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": THREADS if rows >= THREADED_ROWS else 1,
            "verbosity": -1,
        }


def _crossed(forecaster: _Forecaster, rows: TrainingRows, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """A forecast for each row by a forecaster that learned from the other half of the time."""
    half = len(rows) // 2
    forecast = np.empty(len(rows))
    for seen, unseen in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        fitted = forecaster.fit(rows.x[seen], target[seen], rows.weight[seen])
        forecast[unseen] = fitted(rows.x[unseen])
    return forecast
