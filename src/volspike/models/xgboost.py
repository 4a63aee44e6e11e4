"""Gradient-boosted trees by XGBoost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import logit
from xgboost import XGBClassifier

from volspike.models.columns import without_lags
from volspike.models.detector import Trial
from volspike.models.graph import INPUT, OPSET, with_served_ends
from volspike.models.rows import TrainingRows, as_single, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over

THREADS: Final = 2
THREADED_ROWS: Final = 50_000
"""With fewer rows two threads wait for each other longer than they work, and on a busy machine much longer."""

_DEFAULTS: Final = {
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
        self._settings = settings_over(_DEFAULTS, settings, self.name)

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
