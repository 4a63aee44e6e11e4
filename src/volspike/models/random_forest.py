"""A random forest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from volspike.models.columns import without_lags
from volspike.models.detector import Trial
from volspike.models.rows import score_complete, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.sklearn_graph import sklearn_graph

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
