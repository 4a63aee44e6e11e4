"""ONNX graphs that serving runs: one input ``features`` float32 [N, f], one output ``probability`` float32 [N].

``convert_classifier`` and ``to_served_model`` take what the converters of scikit-learn, XGBoost and LightGBM produce;
``GraphBuilder`` builds graphs node by node where no converter covers the complete model. ``LogisticCurve`` is the last
step of most of them.
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

MIN_SLOPE: Final = 0.01
"""Per standard deviation of the score. By its meaning a higher score is more alarming; where the training rows show
the opposite, the probability still rises with it."""


@dataclass(frozen=True, slots=True)
class LogisticCurve:
    """Probability 1 / (1 + exp(−(slope · score + intercept))). The slope is above 0, so ranks are kept."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> Self:
        """The curve with the least weighted log loss for scores (n,) and outcomes (n,).

        The targets are softened as in Platt, "Probabilistic Outputs for Support Vector Machines" (1999), so that
        the slope is finite even if the score separates the classes perfectly.
        """
        total = float(weight.sum())
        centre = float(weight @ score) / total
        spread = float(np.sqrt(weight @ (score - centre) ** 2 / total)) or 1.0
        slope, intercept = _fit_standard((score - centre) / spread, y, weight)
        return cls(slope / spread, intercept - slope * centre / spread)

    def __call__(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of each score."""
        probability: NDArray[np.float64] = expit(self.slope * score + self.intercept)
        return probability

    def log_loss(self, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> float:
        """Weighted mean of −ln of the probability given to the actual outcome."""
        margin = self.slope * score + self.intercept
        return float(np.average(np.logaddexp(0.0, margin) - y * margin, weights=weight))


def _fit_standard(score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept for a score of standard deviation 1."""
    spikes, calm = float(weight[y == 1].sum()), float(weight[y == 0].sum())
    target = np.where(y == 1, (spikes + 1) / (spikes + 2), 1 / (calm + 2))
    share = weight / weight.sum()

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = parameters[0] * score + parameters[1]
        error = share * (expit(margin) - target)
        value = float(share @ (np.logaddexp(0.0, margin) - target * margin))
        return value, np.array([error @ score, error.sum()])

    start = np.array([1.0, np.log((spikes + 1) / (calm + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


INPUT: Final = "features"
OUTPUT: Final = "probability"

# The newest opset that all converters support: onnxmltools 1.16 refuses anything above 15. ONNX Runtime reads it, and
# the format version that belongs to it, since 1.10.
OPSET: Final = 15
_IR_VERSION: Final = 8

_CLASSES: Final = "probabilities"
_SPIKE: Final = 1


def to_served_model(converted: ModelProto, width: int) -> ModelProto:
    """The served graph of a converted binary classifier, with ``probability`` in [0, 1].

    ``converted`` has no ZipMap: its input is ``features`` float32 [N, width], its output ``probabilities`` [N, 2] in
    any precision. Its label and the nodes that only the label needs are removed.
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
        # The float32 sum of a forest's shares may be slightly above 1.
        helper.make_node("Clip", ["single", "none", "all"], [OUTPUT]),
    ]
    nodes = [*inner.node, *ends]
    initializers = [*inner.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())]
    domains = {known.domain: known.version for known in converted.opset_import}
    return _served_model(nodes, initializers, width, domains)


def _served_model(
    nodes: Sequence[NodeProto], initializers: Sequence[TensorProto], width: int, domains: Mapping[str, int]
) -> ModelProto:
    """A checked model; ``domains`` are the operator sets in addition to the main one."""
    graph = helper.make_graph(
        nodes,
        "volspike",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N"])],
        initializer=initializers,
    )
    # Each domain once and the main one at OPSET; converters repeat or omit them.
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted({**domains, "": OPSET}.items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="volspike")
    checker.check_model(model)
    return model


Value: TypeAlias = str | NDArray[Any] | np.generic
"""An input of a node: the name of another node's output, or a constant."""

_UNCALIBRATED: Final = "uncalibrated"


class GraphBuilder:
    """Builds a served graph over ``features`` float32 [N, width].

    Methods that add a node return the name of its output; ``finish`` and its variants return the model.
    """

    def __init__(self, width: int, *, prefix: str = "") -> None:
        """An empty graph. ``prefix`` separates its names from those of an included graph."""
        self._width = width
        self._prefix = prefix
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._domains: dict[str, int] = {}

    def add(self, operator: str, *inputs: Value, skipped: int = 0, **attributes: Any) -> str:
        """Adds a node and returns its first output, or the one after ``skipped`` others."""
        name = f"{self._prefix}{operator.lower()}_{len(self._nodes)}"
        named = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, named, [*[""] * skipped, name], **attributes))
        return name

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """Adds an array or a number."""
        name = f"{self._prefix}constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def include(self, converted: ModelProto, output: str, *, source: str = INPUT) -> str:
        """Adds the nodes of a converted graph with input ``features`` and returns the name of its ``output``.

        ``source`` is the value that they take as their input, by default the graph's own.
        """
        for node in converted.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [source if name == INPUT else name for name in node.input]
            self._nodes.append(copy)
        self._constants.extend(converted.graph.initializer)
        self._domains |= {known.domain: known.version for known in converted.opset_import}
        return output

    def select(self, columns: NDArray[np.int64]) -> str:
        """Adds the selection of columns: float32 [N, number of columns]."""
        if np.array_equal(columns, np.arange(self._width)):
            return INPUT
        return self.add("Gather", INPUT, columns, axis=1)

    def to_double(self, value: Value) -> str:
        """Adds the conversion to float64."""
        return self.add("Cast", value, to=TensorProto.DOUBLE)

    def finish(self, probability: str) -> ModelProto:
        """The model with this output, float64 [N], as ``probability``."""
        self._nodes.append(helper.make_node("Cast", [probability], [OUTPUT], to=TensorProto.FLOAT))
        return _served_model(self._nodes, self._constants, self._width, self._domains)

    def finish_log_odds(self, log_odds: str) -> ModelProto:
        """The model with the logistic function of ``log_odds``, float64 [N], as ``probability``."""
        return self.finish(self.add("Sigmoid", log_odds))

    def finish_curve(self, score: str, curve: LogisticCurve) -> ModelProto:
        """The model with ``curve`` of ``score``, float64 [N], as ``probability``."""
        scaled = self.add("Mul", score, np.float64(curve.slope))
        return self.finish_log_odds(self.add("Add", scaled, np.float64(curve.intercept)))


def append_calibration(model: ModelProto, calibrate: Callable[[GraphBuilder, str], str]) -> ModelProto:
    """A copy of a served graph with a calibration at its end.

    ``calibrate`` adds the nodes from the name of the raw probability to that of the calibrated one, float64 [N].
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.output[:] = [_UNCALIBRATED if name == OUTPUT else name for name in node.output]
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    graph = GraphBuilder(width, prefix="calibrated_")
    return graph.finish(calibrate(graph, graph.include(copy, _UNCALIBRATED)))


def convert_classifier(fitted: Any, width: int) -> ModelProto:
    """The served graph of a fitted binary classifier of ``width`` features that computes in float32."""
    # skl2onnx finds the next float32 through a multiple of the threshold. Near the largest float32 that overflows, with
    # the right result.
    with np.errstate(over="ignore"):
        converted = convert_sklearn(
            fitted,
            "volspike",
            [(INPUT, FloatTensorType([None, width]))],
            target_opset={"": OPSET, "ai.onnx.ml": 3},
            options={"zipmap": False},
        )
    return to_served_model(converted, width)


def convert_linear_classifier(scaler: Any, regression: Any) -> ModelProto:
    """The served graph of a fitted ``StandardScaler`` and ``LogisticRegression``, computed in double.

    In float32 a column whose mean is many deviations from zero would lose its last digits when the mean is subtracted,
    and a far outlier would become infinite after division by a small deviation.
    """
    width = len(scaler.mean_)
    return convert_classifier(make_pipeline(CastTransformer(dtype=np.float64), scaler, regression), width)
