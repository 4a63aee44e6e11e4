"""Builds served ONNX graphs node by node, for what no converter translates in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from volspike.models.curve import Curve
from volspike.models.graph import INPUT, OUTPUT, served_model

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
