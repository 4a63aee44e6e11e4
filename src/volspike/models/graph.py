"""The ends that every served ONNX graph has, put on what a converter makes of a classifier.

The learning and its translation to ONNX belong to the libraries and their converters; what stays here is
the contract that one runtime serves all of them by: ``features`` in, ``probability`` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from onnx.utils import Extractor

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
