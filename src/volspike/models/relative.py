"""``RelativeTrees``: one classifier for products of any scale and of any source.

Its inputs come from prices and from the number of ticks relative to the product's last hour, which every source
provides: no sizes, quotes or sides. Volatilities and returns are divided by the threshold τ of the row. A market whose
prices move twice as much, with a τ twice as high, has the same inputs; another τ is another question about the same
market, so the model answers for thresholds it was not trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Final, Self

import numpy as np
from lightgbm import Booster, Dataset, train
from numpy.typing import NDArray
from onnx import ModelProto
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import expit

from volspike.labels import TAU
from volspike.models.detector import Detector, Sample, TrainingRows, as_shares
from volspike.models.onnx import INPUT, OPSET, GraphBuilder
from volspike.models.trees import with_float32_splits

RISING: Final = (
    "realized_volatility_10s",
    "realized_volatility_30s",
    "realized_volatility_60s",
    "ewma_volatility_10s",
    "ewma_volatility_30s",
    "ewma_volatility_60s",
    "bipower_volatility_60s",
    "upside_volatility_60s",
    "downside_volatility_60s",
    "sparse_volatility_10s",
)
"""Volatilities of up to a minute: the probability never falls as one of them rises."""

VOLATILITIES: Final = (
    *RISING,
    "realized_volatility_300s",
    "realized_volatility_900s",
    "ewma_volatility_300s",
    "ewma_volatility_600s",
    "ewma_volatility_1800s",
    "bipower_volatility_300s",
    "bipower_volatility_1800s",
    "upside_volatility_300s",
    "downside_volatility_300s",
    "sparse_volatility_30s",
    "sparse_volatility_60s",
)
"""Divided by τ."""

RETURNS: Final = {f"log_return_{window}s": 1.0 / sqrt(window) for window in (30, 60, 300)}
"""The absolute value, per root of the window, divided by τ."""

SCALE_FREE: Final = (
    *(f"jump_share_{half_life}s" for half_life in (60, 300, 1800)),
    *(f"semivariance_balance_{half_life}s" for half_life in (60, 300)),
    *(f"trend_strength_{half_life}s" for half_life in (10, 30, 60, 300, 600)),
    *(f"return_autocorrelation_{half_life}s" for half_life in (10, 60, 1800)),
    *(f"variance_ratio_{seconds}s" for seconds in (10, 30, 60)),
    *(f"moving_share_{half_life}s" for half_life in (60, 1800)),
    *(f"tick_ratio_{half_life}s" for half_life in (10, 60, 300)),
    *(f"intensity_ratio_{half_life}s" for half_life in (1, 10, 60)),
    *(f"seconds_to_full_{minutes}min" for minutes in (5, 15, 60)),
    *("hour_to_day_ratio", "yesterday_to_day_ratio", "yesterday_to_hour_ratio"),
)
"""Used as they are. The memory of a day, which separates a volatile hour from a volatile day, is missing at first."""

COLUMNS: Final = frozenset((*VOLATILITIES, *RETURNS, *SCALE_FREE))

MULTIPLES: Final = (0.75, 1.0, 1.0, 1.0, 1.3)
"""Training rows are labelled at τ times one of these, chosen at random: more spikes to learn from, and other
thresholds to answer for."""


class RelativeTrees(Detector):
    """Small gradient-boosted trees on inputs relative to τ; missing values have a branch of their own.

    Settings: ``rounds`` and ``leaves`` of trees, their ``learning_rate``, the shares of rows and columns that each tree
    uses, ``leaf_rows``, the minimum in a leaf, less if there are few rows, and ``shrinkage``, the L2 penalty on a leaf.
    """

    name: ClassVar[str] = "relative_trees"
    accepts_missing: ClassVar[bool] = True
    requirement: ClassVar[str] = "τ of each row and the price columns of the full feature set over 30, 60 and 300 s"
    defaults: ClassVar[Mapping[str, Any]] = {
        "rounds": 300,
        "leaves": 7,
        "learning_rate": 0.03,
        "row_share": 0.5,
        "column_share": 0.3,
        "leaf_rows": 1500,
        "shrinkage": 20.0,
    }

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """Its inputs, and τ; () unless all are offered."""
        used = tuple(name for name in offered if name in COLUMNS)
        return (*used, TAU) if TAU in offered and len(used) == len(COLUMNS) else ()

    def required_columns(self, sample: Sample) -> list[int]:
        """τ only."""
        return [sample.names.index(TAU)]

    def learn(self, rows: TrainingRows) -> RelativeModel:
        """See ``Detector.learn``."""
        random = np.random.default_rng(self._seed)
        tau = rows.x[:, rows.names.index(TAU)] * random.choice(np.array(MULTIPLES, np.float32), len(rows))
        inputs = RelativeInputs.of(rows.names)
        y = rows.volatility >= tau
        parameters = self._parameters(len(rows)) | {
            "monotone_constraints": [int(name in RISING) for name in inputs.order]
        }
        data = Dataset(inputs.derive(rows.x, tau), y, weight=rows.weight)
        return RelativeModel(inputs, log_odds_trees(train(parameters, data, self._settings["rounds"])))

    def _parameters(self, rows: int) -> dict[str, Any]:
        return {
            "objective": "binary",
            "num_leaves": self._settings["leaves"],
            "learning_rate": self._settings["learning_rate"],
            # Rows of one minute share their future: a leaf of a few hundred rows may hold a single event.
            "min_data_in_leaf": min(self._settings["leaf_rows"], max(5, rows // 20)),
            "lambda_l2": self._settings["shrinkage"],
            "feature_fraction": self._settings["column_share"],
            "bagging_fraction": self._settings["row_share"],
            "bagging_freq": 1,
            "max_bin": 63,
            "seed": self._seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }


@dataclass(frozen=True, slots=True, eq=False)
class RelativeInputs:
    """From a row's columns to the inputs of the trees; each field holds positions in a row of ``width`` values."""

    volatilities: NDArray[np.int64]
    returns: NDArray[np.int64]
    scales: NDArray[np.float32]
    scale_free: NDArray[np.int64]
    tau: int
    width: int
    order: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """The inputs of rows with these columns, in the columns' order within each kind."""
        volatilities = [name for name in names if name in VOLATILITIES]
        returns = [name for name in names if name in RETURNS]
        scale_free = [name for name in names if name in SCALE_FREE]
        parts = [np.array([names.index(name) for name in part]) for part in (volatilities, returns, scale_free)]
        return cls(
            volatilities=parts[0],
            returns=parts[1],
            scales=np.array([RETURNS[name] for name in returns], np.float32),
            scale_free=parts[2],
            tau=names.index(TAU),
            width=len(names),
            order=(*volatilities, *returns, *scale_free),
        )

    def derive(self, x: NDArray[np.float32], tau: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, inputs) those of rows ``x`` (n, width) at the thresholds ``tau`` (n,), in the precision of the graph."""
        with np.errstate(all="ignore"):  # an overflow or a quotient by 0 is infinite or NaN, as in the graph
            return np.hstack(
                [
                    x[:, self.volatilities] / tau[:, None],
                    np.abs(x[:, self.returns]) * self.scales / tau[:, None],
                    x[:, self.scale_free],
                ]
            )

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the same to a graph: float32 [N, inputs]."""
        tau = graph.select(np.array([self.tau]))
        returns = graph.add("Mul", graph.add("Abs", graph.select(self.returns)), self.scales)
        parts = (
            graph.add("Div", graph.select(self.volatilities), tau),
            graph.add("Div", returns, tau),
            graph.select(self.scale_free),
        )
        return graph.add("Concat", *parts, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class RelativeModel:
    """Trees whose sum is the log odds of a spike."""

    inputs: RelativeInputs
    trees: Booster

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logistic function of the sum over trees."""
        derived = self.inputs.derive(x, x[:, self.inputs.tau])
        probability: NDArray[np.float64] = expit(np.asarray(self.trees.predict(derived, num_threads=1), np.float64))
        return probability

    def importance(self) -> NDArray[np.float64]:
        """Shares of the gain of the splits on each feature; 0 for τ, which is part of most of them."""
        gain = np.zeros(self.inputs.width)
        order = np.concatenate([self.inputs.volatilities, self.inputs.returns, self.inputs.scale_free])
        gain[order] = self.trees.feature_importance("gain")
        return as_shares(gain)

    def to_onnx(self) -> ModelProto:
        """The inputs and the trees as one graph."""
        graph = GraphBuilder(self.inputs.width)
        derived = self.inputs.add_to(graph)
        width = [(INPUT, FloatTensorType([None, len(self.inputs.order)]))]
        converted = convert_lightgbm(self.trees, "volspike", width, target_opset=OPSET)
        total = graph.include(converted, converted.graph.output[0].name, source=derived)
        return graph.finish_log_odds(graph.add("Squeeze", graph.to_double(total), np.array([1])))


_OBJECTIVE: Final = re.compile(r"^(objective=|\[objective: )binary.*?(\]?)$", re.MULTILINE)


def log_odds_trees(trees: Booster) -> Booster:
    """The trees of a binary classifier as a regression of its log odds, with split points in float32.

    The converter to ONNX then adds no classes to the graph.
    """
    text = _OBJECTIVE.sub(r"\1regression\2", trees.model_to_string())
    return with_float32_splits(Booster(model_str=text))
