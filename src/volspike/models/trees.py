"""Tree models: ``RandomForest`` and ``XGBoost``, and LightGBM's trees in the precision of their ONNX form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from lightgbm import Booster
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import logit
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from volspike.models.detector import Detector, TrainingRows, Trial, as_shares
from volspike.models.onnx import INPUT, OPSET, convert_classifier, to_served_model

THREADS: Final = 2
THREADED_ROWS: Final = 50_000
"""With fewer rows two threads spend more time waiting for each other than working, on a busy machine much more."""


class RandomForest(Detector):
    """One hundred trees over resampled rows; each split is chosen among a few random features.

    Settings: ``trees``; ``columns_per_split``, a share of them or ``sqrt``; ``leaf_rows``, the minimum in a leaf, less
    if there are few rows; ``tree_rows``, the maximum that a tree draws.
    """

    name: ClassVar[str] = "random_forest"
    defaults: ClassVar[Mapping[str, Any]] = {
        "trees": 100,
        "columns_per_split": "sqrt",
        # Rows of one minute share their future: a smaller leaf may hold a single event.
        "leaf_rows": 60,
        # More rows with shared windows would cost hours and add no information.
        "tree_rows": 50_000,
    }

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:
        """How much a leaf generalizes, and how similar the trees may be."""
        return {
            "leaf_rows": trial.suggest_int("leaf_rows", 30, 1000, log=True),
            "columns_per_split": trial.suggest_float("columns_per_split", 0.05, 0.5),
        }

    def learn(self, rows: TrainingRows) -> ForestModel:
        """See ``Detector.learn``."""
        forest = RandomForestClassifier(
            n_estimators=self._settings["trees"],
            max_features=self._settings["columns_per_split"],
            min_samples_leaf=min(self._settings["leaf_rows"], max(5, len(rows) // 50)),
            max_samples=min(len(rows) // 2, self._settings["tree_rows"]),
            random_state=self._seed,
            n_jobs=-1,
        )
        model = ForestModel(_power_of_two_scaler(rows.x), forest)
        with np.errstate(over="ignore", invalid="ignore"):  # as in score
            forest.fit(model.scale(rows.x), rows.y, sample_weight=rows.weight)
        # With several threads the order of the sum over trees would depend on timing.
        forest.set_params(n_jobs=1)
        return model


@dataclass(frozen=True, slots=True)
class ForestModel:
    """A forest of scaled columns."""

    scaler: StandardScaler
    forest: RandomForestClassifier

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean over trees of the share of spikes in the row's leaf."""
        # scikit-learn checks for infinities by summing all values in float32, which may itself overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            probability: NDArray[np.float64] = self.forest.predict_proba(self.scale(x))[:, 1]
        return probability

    def scale(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scaled columns, clipped to the range of float32, as scikit-learn refuses infinities."""
        largest = np.finfo(np.float32).max
        with np.errstate(over="ignore"):
            scaled: NDArray[np.float32] = np.clip(self.scaler.transform(x), -largest, largest)
        return scaled

    def importance(self) -> NDArray[np.float64]:
        """Shares of the mean decrease in impurity (Breiman, "Random Forests", 2001)."""
        return as_shares(np.asarray(self.forest.feature_importances_, np.float64))

    def to_onnx(self) -> ModelProto:
        """The scaler and the trees as one graph."""
        return convert_classifier(make_pipeline(self.scaler, self.forest), int(self.forest.n_features_in_))


def _power_of_two_scaler(rows: NDArray[np.float32]) -> StandardScaler:
    """Divides each column by the power of two closest to its deviation, which changes no digit of it.

    scikit-learn's trees do not split between values closer than 1e-7, whatever their scale: one-second volatilities of
    about 1e-5 would lose precision.
    """
    deviation = rows.astype(np.float64).std(axis=0)
    known = np.where((deviation > 0.0) & np.isfinite(deviation), deviation, 1.0)
    scaler = StandardScaler(with_mean=False).fit(np.ones((1, rows.shape[1])))
    scaler.scale_ = 2.0 ** np.clip(np.round(np.log2(known)), -100, 100)
    return scaler


_MIN_HESSIAN: Final = 10.0


class XGBoost(Detector):
    """Two hundred shallow gradient-boosted trees; missing values have a branch of their own.

    Settings: ``rounds`` and ``depth`` of trees, their ``learning_rate``, the shares of rows and columns that each tree
    uses, ``leaf_share``, the minimum share of the total sum of p(1 − p) in a leaf, and ``shrinkage``, the L2 penalty
    on a leaf.
    """

    name: ClassVar[str] = "xgboost"
    accepts_missing: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "rounds": 200,
        "depth": 4,
        "learning_rate": 0.05,
        "row_share": 0.7,
        "column_share": 0.5,
        "leaf_share": 0.001,
        "shrinkage": 10.0,
    }

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:
        """The number and depth of trees, and how much a leaf generalizes."""
        return {
            "rounds": trial.suggest_int("rounds", 50, 400, log=True),
            "depth": trial.suggest_int("depth", 2, 6),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
            "column_share": trial.suggest_float("column_share", 0.2, 0.8),
            "leaf_share": trial.suggest_float("leaf_share", 1e-4, 1e-2, log=True),
        }

    def learn(self, rows: TrainingRows) -> BoostedModel:
        """See ``Detector.learn``."""
        base_rate = float(np.float32(np.average(rows.y, weights=rows.weight)))
        total_hessian = float(rows.weight.sum()) * base_rate * (1.0 - base_rate)
        trees = XGBClassifier(
            n_estimators=self._settings["rounds"],
            objective="binary:logistic",
            tree_method="hist",
            max_depth=self._settings["depth"],
            learning_rate=self._settings["learning_rate"],
            subsample=self._settings["row_share"],
            colsample_bytree=self._settings["column_share"],
            # Rows of one minute share their future: a leaf of a few hundred rows may hold a single event.
            min_child_weight=max(_MIN_HESSIAN, self._settings["leaf_share"] * total_hessian),
            reg_lambda=self._settings["shrinkage"],
            n_jobs=threads(len(rows)),
            verbosity=0,
            base_score=base_rate,
            random_state=self._seed,
        )
        trees.fit(rows.x, rows.y, sample_weight=rows.weight)
        return BoostedModel(trees, base_rate)


@dataclass(frozen=True, slots=True)
class BoostedModel:
    """XGBoost's trees, which start from the log odds of the training rows' base rate."""

    trees: XGBClassifier
    base_rate: float

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability according to the trees."""
        probability: NDArray[np.float32] = self.trees.predict_proba(x)[:, 1]
        return probability.astype(np.float64)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the total reduction in loss by the splits on each feature."""
        gain = self.trees.get_booster().get_score(importance_type="total_gain")
        return as_shares(np.array([gain.get(f"f{column}", 0.0) for column in range(self._width)], np.float64))

    def to_onnx(self) -> ModelProto:
        """The trees as one ensemble of log odds."""
        converted = convert_xgboost(self.trees, "volspike", graph_inputs(self._width), target_opset=OPSET)
        _set_base_value(converted, float(logit(self.base_rate)))
        return to_served_model(converted, self._width)

    @property
    def _width(self) -> int:
        return int(self.trees.n_features_in_)


def _set_base_value(converted: ModelProto, log_odds: float) -> None:
    """Makes the sums over trees start at ``log_odds``.

    onnxmltools 1.16 does so itself, except if the first tree is a single leaf of value 0, as with too few spikes to
    split off: then it starts at the base rate itself, and a rate of 1 % becomes 50 %.
    """
    (ensemble,) = (node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier")
    kept = [attribute for attribute in ensemble.attribute if attribute.name != "base_values"]
    del ensemble.attribute[:]
    ensemble.attribute.extend([*kept, helper.make_attribute("base_values", [log_odds])])


_THRESHOLDS: Final = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_DECISIONS: Final = re.compile(r"^decision_type=(.*)$", re.MULTILINE)
_SIZES: Final = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)
_MISSING_GOES_LEFT: Final = 0b1010
_MISSING_TYPE: Final = 0b1100


def with_float32_splits(trees: Booster) -> Booster:
    """The same trees with split points in float32, as the ONNX form has them, and a branch for NaN at every split.

    A split point between two neighbouring float32 values is rounded down, so that each stays on its side. If training
    missed no value, LightGBM would treat a missing one as 0; here it goes left, as the smallest does.
    """
    text = _THRESHOLDS.sub(lambda found: "threshold=" + _map_words(found[1], _round_down), trees.model_to_string())
    text = _DECISIONS.sub(lambda found: "decision_type=" + _map_words(found[1], _with_missing_branch), text)
    # The sizes of the trees in bytes are no longer right; without them the trees are read one after the other.
    return Booster(model_str=_SIZES.sub("", text))


def _map_words(text: str, change: Callable[[str], str]) -> str:
    return " ".join(change(word) for word in text.split())


def _round_down(threshold: str) -> str:
    exact = float(threshold)
    largest = float(np.finfo(np.float32).max)
    single = np.float32(np.clip(exact, -largest, largest))
    return repr(float(np.nextafter(single, np.float32(-np.inf)) if float(single) > exact else single))


def _with_missing_branch(decision: str) -> str:
    return decision if int(decision) & _MISSING_TYPE else str(_MISSING_GOES_LEFT)


def threads(rows: int) -> int:
    """The threads with which trees learn from this many rows."""
    return THREADS if rows >= THREADED_ROWS else 1


def graph_inputs(width: int) -> list[tuple[str, FloatTensorType]]:
    """The input of a graph over rows of ``width`` values, as the converters take it."""
    return [(INPUT, FloatTensorType([None, width]))]
