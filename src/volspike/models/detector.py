"""What every detector of volatility spikes can do; one file per detector beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from volspike.models.sample import Sample


class Trial(Protocol):
    """One try of a search, which is asked for each setting by name: an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from ``low`` to ``high``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``."""
        ...


class Detector(Protocol):
    """Learns from rows of features how likely each is to be followed by a spike.

    All detectors learn from values rounded to float32, since that is what their ONNX form is given. Missing
    values are never made up: a detector either takes them as they are (``accepts_missing``; NaN is then its answer
    only where it says so) or leaves their rows out of its training and answers NaN for them.

    ``is_baseline`` marks the rules that a trader has without any learning worth the name: what a model must beat.
    """

    name: ClassVar[str]
    accepts_missing: ClassVar[bool]
    is_baseline: ClassVar[bool]

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """A detector that has learned nothing; the same ``seed``, ``settings`` and rows give the same detector.

        Raises:
            UsageError: a setting that it does not have.
        """

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """Those of the ``offered`` columns that it takes, in their order; () where it cannot do with them."""
        ...

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """Settings that ``trial`` proposes; {} where there is nothing to search."""
        ...

    def fit(self, sample: Sample) -> Self:
        """Learn from a sample of the columns that ``columns`` chose.

        Raises:
            NotEnoughData: the rows that can be used are of one class only.
            UsageError: a column that it needs is not among them, or a library that it needs is not installed.
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
