"""LightGBM's trees as ONNX can hold them: split points in float32, and a branch for what is missing at every split.

A random forest.

Gradient-boosted trees by XGBoost.

Gradient-boosted trees by LightGBM, on what a linear forecast of volatility leaves unexplained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from lightgbm import Booster, Dataset, train
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import logit
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from volspike.models.detector import (
    Sample,
    TrainingRows,
    Trial,
    as_single,
    score_complete,
    settings_over,
    shares,
    training_rows,
    without_lags,
)
from volspike.models.forecast import LinearForecast, filled_volatilities, log_target, reaching
from volspike.models.onnx import INPUT, OPSET, Nodes, sklearn_graph, with_served_ends

_THRESHOLDS: Final = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_DECISIONS: Final = re.compile(r"^decision_type=(.*)$", re.MULTILINE)
_SIZES: Final = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)
_LEFT_WHERE_MISSING: Final = 0b1010
_TELLS_MISSING: Final = 0b1100


def in_single(trees: Booster) -> Booster:
    """The same trees with split points that float32 holds, which is what the ONNX form has, and a branch for NaN.

    A split point between two neighbours of float32 is rounded down, so that each stays on its side. Where training
    missed no value LightGBM would take a missing one for 0; here it goes left, as the smallest does.
    """
    text = _THRESHOLDS.sub(lambda found: "threshold=" + _each(found[1], _rounded_down), trees.model_to_string())
    text = _DECISIONS.sub(lambda found: "decision_type=" + _each(found[1], _with_missing), text)
    # The sizes of the trees in bytes are no longer right; without them they are read one after the other.
    return Booster(model_str=_SIZES.sub("", text))


def _each(numbers: str, change: Callable[[str], str]) -> str:
    return " ".join(change(number) for number in numbers.split())


def _rounded_down(threshold: str) -> str:
    exact = float(threshold)
    largest = float(np.finfo(np.float32).max)
    single = np.float32(np.clip(exact, -largest, largest))
    return repr(float(np.nextafter(single, np.float32(-np.inf)) if float(single) > exact else single))


def _with_missing(decision: str) -> str:
    return decision if int(decision) & _TELLS_MISSING else str(_LEFT_WHERE_MISSING)


_DEFAULTS: Final = {
    "trees": 100,
    "columns_per_split": "sqrt",
    # Rows of one minute share their future: a leaf of fewer may know a single event by heart.
    "leaf_rows": 60,
    # Each tree draws at most so many rows: more of rows that share their windows add hours, not knowledge.
    "tree_rows": 50_000,
}


class RandomForest:
    """One hundred trees over resampled rows, each split chosen among a random few features.

    Settings: ``trees``; ``columns_per_split``, a share of them or ``sqrt``; ``leaf_rows``, the fewest in a leaf, less
    where there are few rows; ``tree_rows``, the most that a tree draws.
    """

    name: ClassVar[str] = "random_forest"
    accepts_missing: ClassVar[bool] = False
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
        """How much a leaf generalises, and how alike the trees may be."""
        return {
            "leaf_rows": trial.suggest_int("leaf_rows", 30, 1000, log=True),
            "columns_per_split": trial.suggest_float("columns_per_split", 0.05, 0.5),
        }

    def fit(self, sample: Sample) -> Self:
        """Learn from the rows that have all their values, on all cores."""
        rows = training_rows(sample, accepts_missing=False)
        self._forest = RandomForestClassifier(
            n_estimators=self._settings["trees"],
            max_features=self._settings["columns_per_split"],
            min_samples_leaf=min(self._settings["leaf_rows"], max(5, len(rows) // 50)),
            max_samples=min(len(rows) // 2, self._settings["tree_rows"]),
            random_state=self._seed,
            n_jobs=-1,
        )
        self._scaler = power_of_two_scaler(rows.x)
        with np.errstate(over="ignore", invalid="ignore"):  # as in _score
            self._forest.fit(self._scaled(rows.x), rows.y, sample_weight=rows.weight)
        # On several threads the trees' votes are summed in the order in which threads finish.
        self._forest.set_params(n_jobs=1)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over trees of the share of spikes in the row's leaf; NaN for a row that misses a value."""
        return score_complete(x, self._score)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the mean decrease in impurity (Breiman, "Random Forests", 2001)."""
        return shares(np.asarray(self._forest.feature_importances_, np.float64))

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """The scaler and the trees as one graph."""
        return sklearn_graph(make_pipeline(self._scaler, self._forest), int(self._forest.n_features_in_))

    def _score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        # scikit-learn looks for infinities by summing all values in float32, which may itself overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            probability: NDArray[np.float64] = self._forest.predict_proba(self._scaled(rows))[:, 1]
        return probability

    def _scaled(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        # scikit-learn refuses infinities; beyond every threshold the largest number is as good as one
        largest = np.finfo(np.float32).max
        with np.errstate(over="ignore"):
            scaled: NDArray[np.float32] = np.clip(self._scaler.transform(rows), -largest, largest)
        return scaled


def power_of_two_scaler(rows: NDArray[np.float32]) -> StandardScaler:
    """Divides each column by the power of two next to its deviation, which changes no digit of it.

    scikit-learn's trees do not split between values closer than 1e-7, whatever their scale; one-second volatilities
    of 1e-5 would lose their finer half.
    """
    deviation = rows.astype(np.float64).std(axis=0)
    known = np.where((deviation > 0.0) & np.isfinite(deviation), deviation, 1.0)
    scaler = StandardScaler(with_mean=False).fit(np.ones((1, rows.shape[1])))
    scaler.scale_ = 2.0 ** np.clip(np.round(np.log2(known)), -100, 100)
    return scaler


THREADS: Final = 2
THREADED_ROWS: Final = 50_000
"""With fewer rows two threads wait for each other longer than they work, and on a busy machine much longer."""

_DEFAULTS_XGBOOST: Final = {
    "rounds": 200,
    "depth": 4,
    "learning_rate": 0.05,
    "row_share": 0.7,
    "column_share": 0.5,
    "leaf_share": 0.001,
    "shrinkage": 10.0,
}
_LEAST_LEAF: Final = 10.0


class XGBoost:
    """Two hundred shallow trees, each mending what those before it got wrong; missing values have a branch.

    Settings: ``rounds`` and ``depth`` of trees, their ``learning_rate``, the shares of rows and columns that each tree
    sees, ``leaf_share``, the least share of all that is to be told (the sum of p(1 − p)) in a leaf, and
    ``shrinkage``, the L2 penalty on a leaf.
    """

    name: ClassVar[str] = "xgboost"
    accepts_missing: ClassVar[bool] = True
    is_baseline: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        self._seed = seed
        self._settings = settings_over(_DEFAULTS_XGBOOST, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """All but the second-by-second ones."""
        return without_lags(offered)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """How many trees of which depth, and how much a leaf generalises."""
        return {
            "rounds": trial.suggest_int("rounds", 50, 400, log=True),
            "depth": trial.suggest_int("depth", 2, 6),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
            "column_share": trial.suggest_float("column_share", 0.2, 0.8),
            "leaf_share": trial.suggest_float("leaf_share", 1e-4, 1e-2, log=True),
        }

    def fit(self, sample: Sample) -> Self:
        """Learn from all rows, those that miss values included."""
        rows = training_rows(sample, accepts_missing=True)
        self._base = float(np.float32(np.average(rows.y, weights=rows.weight)))
        self._trees = XGBClassifier(**self._parameters(rows), base_score=self._base, random_state=self._seed)
        self._trees.fit(rows.x, rows.y, sample_weight=rows.weight)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for every row."""
        probability: NDArray[np.float32] = self._trees.predict_proba(as_single(x))[:, 1]
        return probability.astype(np.float64)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the total gain in loss over the splits on each feature."""
        gain = self._trees.get_booster().get_score(importance_type="total_gain")
        return shares(np.array([gain.get(f"f{column}", 0.0) for column in range(self._width)], np.float64))

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """The trees as one ensemble of log odds over the training rows' base rate."""
        inputs = [(INPUT, FloatTensorType([None, self._width]))]
        converted = convert_xgboost(self._trees, "volspike", inputs, target_opset=OPSET)
        _start_at(converted, float(logit(self._base)))
        return with_served_ends(converted, self._width)

    def _parameters(self, rows: TrainingRows) -> dict[str, Any]:
        told = float(rows.weight.sum()) * self._base * (1.0 - self._base)
        return {
            "n_estimators": self._settings["rounds"],
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": self._settings["depth"],
            "learning_rate": self._settings["learning_rate"],
            "subsample": self._settings["row_share"],
            "colsample_bytree": self._settings["column_share"],
            # Rows of one minute share their future: a leaf of a few hundred among many may be a single event.
            "min_child_weight": max(_LEAST_LEAF, self._settings["leaf_share"] * told),
            "reg_lambda": self._settings["shrinkage"],
            "n_jobs": THREADS if len(rows) >= THREADED_ROWS else 1,
            "verbosity": 0,
        }

    @property
    def _width(self) -> int:
        return int(self._trees.n_features_in_)


def _start_at(converted: ModelProto, log_odds: float) -> None:
    """Let the sums over trees start at ``log_odds``.

    onnxmltools 1.16 does so itself, except where the first tree is a single leaf of value 0, as where spikes are
    too few to split off: there it starts at the base rate itself, and a rate of 1 % comes out as 50 %.
    """
    (ensemble,) = (node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier")
    kept = [attribute for attribute in ensemble.attribute if attribute.name != "base_values"]
    del ensemble.attribute[:]
    ensemble.attribute.extend([*kept, helper.make_attribute("base_values", [log_odds])])


_DEFAULTS_LIGHTGBM: Final = {
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
        self._settings = settings_over(_DEFAULTS_LIGHTGBM, settings, self.name)

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
