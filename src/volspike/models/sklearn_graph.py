"""scikit-learn's classifiers as served ONNX graphs, converted by skl2onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.pipeline import make_pipeline

from volspike.models.graph import INPUT, OPSET, with_served_ends


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
