"""``LightGBM``: a forecast of log volatility and a classifier of spikes, combined with weights from held-out rows.

Over one to four training days the forecast is better: the level of a market shifts from day to day, and the forecast
learns how the next minute compares with those before it, from every outcome instead of one bit. Over more days the
classifier catches up, as it learns what precedes a spike. Which of both to trust is learned from their log odds on rows
that neither was fitted to.

A classifier also learns the share of spikes. That is stable if τ follows the market; with a τ frozen from the training
days it shifts from day to day, and with it the level of the classifier's probabilities: on the bitFlyer recording the
pooled PR-AUC fell from 0.647 to 0.602, at the same PR-AUC within each day. Then the forecast is used alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from lightgbm import Booster, Dataset, train
from numpy.typing import NDArray
from onnx import ModelProto, compose
from onnxmltools import convert_lightgbm
from scipy.optimize import minimize
from scipy.special import expit

from volspike.labels import HORIZON_S, TAU
from volspike.models.detector import Detector, Sample, TrainingRows, Trial, as_float32, as_shares, without_lags
from volspike.models.forecast import LinearForecast, available_volatilities, curve_from_errors, log_target
from volspike.models.onnx import OPSET, GraphBuilder, LogisticCurve
from volspike.models.relative import log_odds_trees
from volspike.models.trees import graph_inputs, threads, with_float32_splits

_MIN_COLUMNS: Final = 6
"""Each tree uses at least this many columns, if there are as many: a fifth of ten would be two."""

PRIOR_WEIGHT: Final = 0.5
PRIOR_DEVIATION: Final = 0.3
"""Mean and standard deviation of the normal prior of both weights in the sum of log odds."""

_CLASSIFIER_SHRINKAGE: Final = 0.5
"""The classifier's L2 penalty relative to that of the regression, whose hessians are larger."""


class LightGBM(Detector):
    """Log odds of a forecast of log volatility and, if τ differs from row to row, of a classifier, in a weighted sum.

    The forecast is a ridge regression plus trees on its residual; a curve turns it into a probability. Each half of the
    training time is scored by models of the other half: the curve's slope follows from the errors of these forecasts,
    and the weights are those that predict the spikes of these rows best. Missing values have a branch in the trees; the
    volatilities of the linear part are required.

    Settings: ``rounds`` and ``leaves`` of trees, their ``learning_rate``, the shares of rows and columns that each
    tree uses, ``leaf_rows``, the minimum in a leaf, less if there are few rows, and ``shrinkage``, the L2 penalty on a
    leaf relative to that minimum.
    """

    name: ClassVar[str] = "lightgbm"
    accepts_missing: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "rounds": 150,
        "leaves": 31,
        "learning_rate": 0.03,
        "row_share": 0.3,
        "column_share": 0.2,
        "leaf_rows": 2000,
        "shrinkage": 0.05,
    }

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:
        """The number and size of trees, and how much a leaf generalizes."""
        return {
            "rounds": trial.suggest_int("rounds", 50, 400, log=True),
            "leaves": trial.suggest_int("leaves", 7, 63, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
            "column_share": trial.suggest_float("column_share", 0.1, 0.6),
            "leaf_rows": trial.suggest_int("leaf_rows", 500, 5000, log=True),
        }

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """All except the second-by-second columns."""
        return without_lags(offered)

    def required_columns(self, sample: Sample) -> list[int]:
        """The volatilities of the linear part."""
        return [sample.names.index(name) for name in available_volatilities(as_float32(sample.x), sample.names)]

    def learn(self, rows: TrainingRows) -> CombinedModel:
        """See ``Detector.learn``."""
        target = log_target(rows.volatility, rows.tau)
        first, second = slice(len(rows) // 2), slice(len(rows) // 2, None)
        is_mixed = all(0 < int(rows.y[half].sum()) < len(rows.y[half]) for half in (first, second))
        classifies = is_mixed and TAU in rows.names
        forecast, log_odds = np.empty(len(rows)), np.empty(len(rows))
        for fitted, held_out in ((first, second), (second, first)):
            pair = self._fit_pair(rows, fitted, target, classifies=classifies)
            forecast[held_out] = pair.forecast(rows.x[held_out])
            log_odds[held_out] = pair.log_odds(rows.x[held_out])
        curve = curve_from_errors(target - forecast, rows.weight)
        margins = np.column_stack([curve.slope * forecast + curve.intercept, log_odds])
        combination = Combination.fit(margins, rows.y, rows.weight) if classifies else FORECAST_ALONE
        pair = self._fit_pair(rows, slice(None), target, classifies=classifies)
        return CombinedModel(pair, curve, combination, pair.importance(rows.x, curve, combination))

    def _fit_pair(self, rows: TrainingRows, part: slice, target: NDArray[np.float64], *, classifies: bool) -> Pair:
        """The forecast of some of the rows and, if it ``classifies``, the classifier; they share binned features."""
        x, weight = rows.x[part], rows.weight[part]
        selected = [rows.names[column] for column in self._required or []]
        linear = LinearForecast.fit(x, rows.names, selected, target[part], weight)
        parameters = self._parameters(*x.shape)
        data = Dataset(x, target[part] - linear(x), weight=weight, params=parameters)
        trees = train(parameters, data, self._settings["rounds"])
        forecast = VolatilityForecast(linear, with_float32_splits(trees))
        if not classifies:
            return Pair(forecast, None)
        data.set_label(rows.y[part])
        classifier = parameters | {
            "objective": "binary",
            "lambda_l2": _CLASSIFIER_SHRINKAGE * parameters["lambda_l2"],
        }
        spikes = train(classifier, data, self._settings["rounds"])
        return Pair(forecast, log_odds_trees(spikes))

    def _parameters(self, rows: int, width: int) -> dict[str, Any]:
        # Rows of one minute share their future: a leaf of a few hundred rows may hold a single event.
        leaf_rows = min(self._settings["leaf_rows"], max(5, rows // 10))
        return {
            "objective": "regression",
            "num_leaves": self._settings["leaves"],
            "learning_rate": self._settings["learning_rate"],
            "min_data_in_leaf": leaf_rows,
            "lambda_l2": self._settings["shrinkage"] * leaf_rows,
            "feature_fraction": min(1.0, max(self._settings["column_share"], _MIN_COLUMNS / width)),
            "bagging_fraction": self._settings["row_share"],
            "bagging_freq": 1,
            "max_bin": 63,
            "seed": self._seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads(rows),
            "verbosity": -1,
        }


@dataclass(frozen=True, slots=True, eq=False)
class VolatilityForecast:
    """A forecast of the logarithm of volatility over τ: the linear part plus the trees."""

    linear: LinearForecast
    trees: Booster

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        return self.linear(x) + self._trees(x)

    def _trees(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(self.trees.predict(x, num_threads=1), np.float64)

    def importance(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shares of the variance over rows ``x`` of the linear part and of the trees.

        The linear part's share is divided by absolute coefficients, the trees' by the gain of the splits on each
        feature.
        """
        linear = np.zeros(x.shape[1])
        linear[self.linear.columns] = np.abs(self.linear.coefficients)
        parts = np.array([np.var(self.linear(x)), np.var(self._trees(x))])
        return _shares_of(parts, (linear, _gains(self.trees)))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A forecast and, if there is a classifier, its trees, whose sum is the log odds of a spike."""

    forecast: VolatilityForecast
    classifier: Booster | None

    def log_odds(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The classifier's for each row of ``x`` (n, f); 0 without one."""
        if self.classifier is None:
            return np.zeros(len(x))
        return np.asarray(self.classifier.predict(x, num_threads=1), np.float64)

    def importance(self, x: NDArray[np.float32], curve: LogisticCurve, combination: Combination) -> NDArray[np.float64]:
        """The importances of both, in proportion to the variance over rows ``x`` that they bring to the sum."""
        if self.classifier is None:
            return self.forecast.importance(x)
        deviations = combination.forecast * curve.slope * self.forecast(x), combination.classifier * self.log_odds(x)
        parts = np.array([np.var(deviation) for deviation in deviations])
        return _shares_of(parts, (self.forecast.importance(x), _gains(self.classifier)))


@dataclass(frozen=True, slots=True)
class Combination:
    """Log odds as a weighted sum of those of ``forecast`` and ``classifier``, plus ``constant``."""

    forecast: float
    classifier: float
    constant: float

    @classmethod
    def fit(cls, margins: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> Self:
        """The weights of greatest posterior density for the log odds ``margins`` (n, 2) of held-out rows.

        None is negative. Rows count by minutes, as their outcomes overlap.
        """
        share = weight / HORIZON_S

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            margin = margins @ parameters[:2] + parameters[2]
            error = share * (expit(margin) - y)
            away = (parameters[:2] - PRIOR_WEIGHT) / PRIOR_DEVIATION
            value = float(share @ (np.logaddexp(0.0, margin) - y * margin) + 0.5 * away @ away)
            return value, np.append(error @ margins + away / PRIOR_DEVIATION, error.sum())

        start = np.array([PRIOR_WEIGHT, PRIOR_WEIGHT, 0.0])
        bounds = [(0.0, None), (0.0, None), (None, None)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(*found.x.tolist())


FORECAST_ALONE: Final = Combination(1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class CombinedModel:
    """The probability of a spike from both models; ``shares`` are the importances of the columns."""

    pair: Pair
    curve: LogisticCurve
    combination: Combination
    shares: NDArray[np.float64]

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logistic function of the weighted sum for each row."""
        forecast = self.curve.slope * self.pair.forecast(x) + self.curve.intercept
        weighted = self.combination.forecast * forecast + self.combination.classifier * self.pair.log_odds(x)
        probability: NDArray[np.float64] = expit(weighted + self.combination.constant)
        return probability

    def importance(self) -> NDArray[np.float64]:
        """Shares of both models."""
        return self.shares

    def to_onnx(self) -> ModelProto:
        """Both models and their combination as one graph."""
        graph = GraphBuilder(len(self.shares))
        forecast = graph.add(
            "Add", self._add_trees(graph, self.pair.forecast.trees, ""), self.pair.forecast.linear.add_to(graph)
        )
        if self.pair.classifier is None:
            return graph.finish_curve(forecast, self.curve)
        log_odds = self._add_trees(graph, self.pair.classifier, "classifier_")
        weight = self.combination.forecast
        terms = (
            graph.add("Mul", forecast, np.float64(weight * self.curve.slope)),
            graph.add("Mul", log_odds, np.float64(self.combination.classifier)),
        )
        constant = weight * self.curve.intercept + self.combination.constant
        return graph.finish_log_odds(graph.add("Add", graph.add("Add", *terms), np.float64(constant)))

    def _add_trees(self, graph: GraphBuilder, trees: Booster, prefix: str) -> str:
        """Adds the sum over trees: float64 [N]."""
        converted = convert_lightgbm(trees, "volspike", graph_inputs(len(self.shares)), target_opset=OPSET)
        if prefix:
            converted = compose.add_prefix(converted, prefix, rename_inputs=False)
        total = graph.include(converted, converted.graph.output[0].name)
        return graph.add("Squeeze", graph.to_double(total), np.array([1]))


def _gains(trees: Booster) -> NDArray[np.float64]:
    return np.asarray(trees.feature_importance("gain"), np.float64)


def _shares_of(parts: NDArray[np.float64], weights: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The sum of the shares by each of the ``weights``, in proportion to ``parts``; those without any are left out."""
    weights = list(weights)
    known = [part * as_shares(weight) for part, weight in zip(parts, weights, strict=True) if weight.any()]
    return as_shares(np.sum(known, axis=0) if known else np.zeros(len(weights[0])))
