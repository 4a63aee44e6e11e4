"""``Scorer``: a model's ONNX graph in an ONNX Runtime session, from feature rows to probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# ONNX Runtime reads it when it is imported. By default it sends events about its use to Microsoft, and writes a device
# number and a queue of events to the user's home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from volspike.errors import ArtifactCorrupt, SchemaMismatch
from volspike.models.detector import as_float32, is_complete

_INPUT: Final = "features"
_OUTPUT: Final = ("probability",)
_CHUNK_ROWS: Final = 65_536
_ERRORS_ONLY: Final = 3
_REACH: Final = float(np.finfo(np.float32).max)

# ONNX Runtime's errors have no common base class except Exception.
_UNUSABLE: Final = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)


class Scorer:
    """Scores rows of ``width`` features with one thread; may be called from several threads.

    A row with a missing or infinite value gets NaN, unless the model ``accepts_missing``.
    """

    def __init__(self, onnx: bytes, *, width: int, accepts_missing: bool) -> None:
        """Creates a session of the graph.

        Raises:
            ArtifactCorrupt: the bytes are no graph from ``width`` features to one probability.
        """
        self.accepts_missing = accepts_missing
        self._width = width
        try:
            self._session = onnxruntime.InferenceSession(onnx, _single_threaded(), ["CPUExecutionProvider"])
        except _UNUSABLE as error:
            raise ArtifactCorrupt(f"not a usable ONNX model: {_first_line(error)}") from error
        self._check_ends()

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of each row of ``x`` (n, width), n long.

        Raises:
            SchemaMismatch: rows of another width.
        """
        self._check_width(x.shape[1])
        single = as_float32(x)
        probability = np.empty(len(single))
        for start in range(0, len(single), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            probability[chunk] = self._session.run(_OUTPUT, {_INPUT: single[chunk]})[0]
        if not self.accepts_missing:
            probability[~is_complete(single)] = nan
        return probability

    def probability_of(self, row: Sequence[float]) -> float:
        """The probability of one row: the same as ``probability``, but faster."""
        self._check_width(len(row))
        values = np.array([row], np.float64)
        largest = np.abs(values).max() if not self.accepts_missing else np.fmax.reduce(np.abs(values), axis=None)
        if not largest <= _REACH:
            return float(self.probability(values)[0])
        return float(self._session.run(_OUTPUT, {_INPUT: values.astype(np.float32)})[0][0])

    def _check_width(self, width: int) -> None:
        if width != self._width:
            raise SchemaMismatch(f"the model expects rows of {self._width} features, got {width}")

    def _check_ends(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = ([_end(node) for node in inputs], [_end(node) for node in outputs])
        wanted: tuple[list[Any], list[Any]] = (
            [(_INPUT, "tensor(float)", [self._width])],
            [(_OUTPUT[0], "tensor(float)", [])],
        )
        if found != wanted:
            raise ArtifactCorrupt(f"an ONNX model with inputs and outputs {found}, expected {wanted}")


def _end(node: Any) -> tuple[str, str, list[Any]]:
    """Name, type and shape without the first dimension of an input or output."""
    return node.name, node.type, list(node.shape[1:])


def _single_threaded() -> Any:
    """One row takes microseconds. Passing it to a thread pool would take longer, and spinning would occupy a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
