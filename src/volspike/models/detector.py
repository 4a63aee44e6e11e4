"""What every detector of volatility spikes can do; one file per detector beside this one."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray


class Detector(Protocol):
    """Learns from rows of features how likely each is to be followed by a spike.

    All detectors learn from values rounded to float32, since that is what their ONNX form is given. Missing
    values are never made up: a detector either takes them as they are (``accepts_missing``) or leaves their
    rows out of its training and answers NaN for them.
    """

    name: ClassVar[str]
    accepts_missing: ClassVar[bool]

    def __init__(self, *, seed: int = 0) -> None:
        """A detector that has learned nothing; the same ``seed`` and rows give the same detector."""

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int8]) -> Self:
        """Learn from ``x`` (n, f) and ``y`` (n, 1 where a spike followed).

        Raises:
            NotEnoughData: the rows that can be used are of one class only.
        """
        ...

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, f); NaN where a row cannot be scored."""
        ...

    def importance(self) -> NDArray[np.float64]:
        """How much each feature counts: f shares, none negative, of sum 1."""
        ...

    def thresholds(self) -> dict[str, float]:
        """Thresholds of probability that belong to the detector itself, by name; mostly none."""
        ...

    def to_onnx(self) -> Any:
        """An ``onnx.ModelProto``: input ``features`` float32 [N, f], output ``probability`` float32 [N]."""
        ...
