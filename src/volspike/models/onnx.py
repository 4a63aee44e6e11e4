"""The logistic curve that turns a score into a probability and never changes the order of two scores.

The ends that every served ONNX graph has, put on what a converter makes of a classifier.

The learning and its translation to ONNX belong to the libraries and their converters; what stays here is
the contract that one runtime serves all of them by: ``features`` in, ``probability`` out.

Builds served ONNX graphs node by node, for what no converter translates in one piece.

scikit-learn's classifiers as served ONNX graphs, converted by skl2onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from onnx.utils import Extractor
from scipy.optimize import minimize
from scipy.special import expit
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.pipeline import make_pipeline

LEAST_SLOPE: Final = 0.01
"""Per standard deviation of the score. A higher score is more alarming by its meaning; where data say otherwise, the
probability still rises."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Probability 1 / (1 + exp(−(slope · score + intercept))), with a slope above 0."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> Self:
        """The curve of least weighted log loss through scores (n,) and outcomes (n,).

        With the softened targets of Platt, "Probabilistic Outputs for Support Vector Machines" (1999), so that
        classes that separate cleanly still give a finite slope.
        """
        total = float(weight.sum())
        centre = float(weight @ score) / total
        spread = float(np.sqrt(weight @ (score - centre) ** 2 / total)) or 1.0
        slope, intercept = _fitted((score - centre) / spread, y, weight)
        return cls(slope / spread, intercept - slope * centre / spread)

    def __call__(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of each score."""
        probability: NDArray[np.float64] = expit(self.slope * score + self.intercept)
        return probability

    def log_loss(self, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> float:
        """Weighted mean of −ln of the probability of what happened."""
        margin = self.slope * score + self.intercept
        return float(np.average(np.logaddexp(0.0, margin) - y * margin, weights=weight))


def _fitted(score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept over a score of deviation 1."""
    spikes, calm = float(weight[y == 1].sum()), float(weight[y == 0].sum())
    target = np.where(y == 1, (spikes + 1) / (spikes + 2), 1 / (calm + 2))
    share = weight / weight.sum()

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = parameters[0] * score + parameters[1]
        error = share * (expit(margin) - target)
        value = float(share @ (np.logaddexp(0.0, margin) - target * margin))
        return value, np.array([error @ score, error.sum()])

    start = np.array([1.0, np.log((spikes + 1) / (calm + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


INPUT: Final = "features"
OUTPUT: Final = "probability"

# The newest opset that every converter takes: onnxmltools 1.16 refuses anything above 15. ONNX Runtime reads it
# since 1.10, and the format that goes with it.
OPSET: Final = 15
_IR_VERSION: Final = 8

_CLASSES: Final = "probabilities"
_SPIKE: Final = 1


def with_served_ends(converted: ModelProto, width: int) -> ModelProto:
    """``converted`` with input ``features`` float32 [N, width] and output ``probability`` float32 [N] in [0, 1].

    It comes from a converter of binary classifiers without a ZipMap: its input is ``features`` float32, its output
    ``probabilities`` [N, 2] in any precision. Its label and what only the label needs are dropped.
    """
    inner = Extractor(converted).extract_model([INPUT], [_CLASSES]).graph
    constants = {
        "spike_class": np.array(_SPIKE, np.int64),
        "none": np.array(0, np.float32),
        "all": np.array(1, np.float32),
    }
    ends = [
        helper.make_node("Gather", [_CLASSES, "spike_class"], ["spike"], axis=1),
        helper.make_node("Cast", ["spike"], ["single"], to=TensorProto.FLOAT),
        # A forest's float32 sum of shares may end a bit above 1.
        helper.make_node("Clip", ["single", "none", "all"], [OUTPUT]),
    ]
    nodes = [*inner.node, *ends]
    initializers = [*inner.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())]
    domains = {known.domain: known.version for known in converted.opset_import}
    return served_model(nodes, initializers, width, domains)


def served_model(
    nodes: Sequence[NodeProto], initializers: Sequence[TensorProto], width: int, domains: Mapping[str, int]
) -> ModelProto:
    """A checked model from ``features`` to ``probability``; ``domains`` are the operator sets besides the main one."""
    graph = helper.make_graph(
        nodes,
        "volspike",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N"])],
        initializer=initializers,
    )
    # Each domain once, which the converters do not see to, and the main one at OPSET, which they may leave out.
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted({**domains, "": OPSET}.items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="volspike")
    checker.check_model(model)
    return model


Value: TypeAlias = str | NDArray[Any] | np.generic
"""An input of a node: the name of another's output, or a constant."""

_BEFORE: Final = "uncalibrated"


class Nodes:
    """The nodes and constants of a graph over ``features`` float32 [N, width]; every method names what it adds."""

    def __init__(self, width: int, *, prefix: str = "") -> None:
        """A graph with nothing in it; ``prefix`` tells its names from those of one that it takes in."""
        self._width = width
        self._prefix = prefix
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._domains: dict[str, int] = {}

    def add(self, operator: str, *inputs: Value, skipped: int = 0, **attributes: Any) -> str:
        """The output of a new node: the first, or the one after ``skipped`` others."""
        name = f"{self._prefix}{operator.lower()}_{len(self._nodes)}"
        named = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, named, [*[""] * skipped, name], **attributes))
        return name

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """An array or a number."""
        name = f"{self._prefix}constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def take(self, converted: ModelProto, output: str) -> str:
        """The nodes of a converter's graph whose input is ``features``; ``output`` is that of them which is wanted."""
        self._nodes.extend(converted.graph.node)
        self._constants.extend(converted.graph.initializer)
        self._domains |= {known.domain: known.version for known in converted.opset_import}
        return output

    def gathered(self, columns: NDArray[np.int64]) -> str:
        """These columns of the features: float32 [N, number of columns]."""
        if np.array_equal(columns, np.arange(self._width)):
            return INPUT
        return self.add("Gather", INPUT, columns, axis=1)

    def in_double(self, value: Value) -> str:
        """``value`` as float64."""
        return self.add("Cast", value, to=TensorProto.DOUBLE)

    def served(self, margin: str) -> ModelProto:
        """The whole: the logistic function of ``margin``, float64 [N], as ``probability``."""
        return self.told(self.add("Sigmoid", margin))

    def told(self, probability: str) -> ModelProto:
        """The whole, with ``probability``, float64 [N], as what it tells."""
        self._nodes.append(helper.make_node("Cast", [probability], [OUTPUT], to=TensorProto.FLOAT))
        return served_model(self._nodes, self._constants, self._width, self._domains)

    def served_curve(self, score: str, curve: Curve) -> ModelProto:
        """The whole: ``curve`` of ``score``, float64 [N], as ``probability``."""
        scaled = self.add("Mul", score, np.float64(curve.slope))
        return self.served(self.add("Add", scaled, np.float64(curve.intercept)))


def appended(model: ModelProto, end: Callable[[Nodes, str], str]) -> ModelProto:
    """A copy of a served graph whose ``probability`` is what ``end`` makes of the one that it had, float64 [N]."""
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    nodes = Nodes(width, prefix="calibrated_")
    return nodes.told(end(nodes, nodes.take(_renamed(model), _BEFORE)))


def _renamed(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.output[:] = [_BEFORE if name == OUTPUT else name for name in node.output]
    return copy


def sklearn_graph(fitted: Any, width: int) -> ModelProto:
    """The served graph of a fitted binary classifier of ``width`` features that computes in float32."""
    # skl2onnx steps to the next float32 through a multiple of the threshold, which overflows near float32's end
    # and is right all the same.
    with np.errstate(over="ignore"):
        converted = convert_sklearn(
            fitted,
            "volspike",
            [(INPUT, FloatTensorType([None, width]))],
            target_opset={"": OPSET, "ai.onnx.ml": 3},
            options={"zipmap": False},
        )
    return with_served_ends(converted, width)


def linear_graph(scaler: Any, regression: Any) -> ModelProto:
    """The served graph of a fitted ``StandardScaler`` and ``LogisticRegression``, in double between float32 ends.

    In float32 a column whose mean is many deviations from zero loses its last digits when the mean is taken
    off, and a far outlier is infinite after division by a small deviation.
    """
    width = len(scaler.mean_)
    return sklearn_graph(make_pipeline(CastTransformer(dtype=np.float64), scaler, regression), width)
