"""Gradient-boosted trees by XGBoost."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import logit
from xgboost import XGBClassifier

from volspike.models.graph import INPUT, OPSET, with_served_ends
from volspike.models.rows import as_single, shares, training_rows

ROUNDS: Final = 200
THREADS: Final = 2
THREADED_ROWS: Final = 50_000
"""With fewer rows two threads wait for each other longer than they work, and on a busy machine much longer."""

_SETTINGS: Final = {
    "n_estimators": ROUNDS,
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 4,
    "learning_rate": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.8,
    "min_child_weight": 10.0,
    "reg_lambda": 1.0,
    "verbosity": 0,
}


class XGBoost:
    """Two hundred shallow trees, each mending what those before it got wrong; missing values have a branch."""

    name: ClassVar[str] = "xgboost"
    accepts_missing: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int8]) -> Self:
        """Learn from all rows of ``x``, those that miss values included."""
        single, y = training_rows(x, y, accepts_missing=True)
        self._base = float(np.float32(y.mean()))
        threads = THREADS if len(y) >= THREADED_ROWS else 1
        self._trees = XGBClassifier(**_SETTINGS, base_score=self._base, random_state=self._seed, n_jobs=threads)
        self._trees.fit(single, y)
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
