"""What a training run found, for people to read and for the command line to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volspike.evaluation import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldReport:
    """One fold of one model: its rows, its own τ and threshold, and the figures on its test rows.

    ``threshold_name`` is ``best_f1``, or ``rate_10`` where no threshold catches a spike of the validation rows.
    ``left_out_rows`` of the training and test rows missed a value that the model needs.
    """

    fold: int
    tau: float
    threshold: float
    threshold_name: str
    train_rows: int
    validation_rows: int
    test_rows: int
    left_out_rows: int
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model: pooled figures over the test rows of all folds, and what was written.

    In ``pooled`` each row is scored by its own fold's model and judged with its own fold's τ and threshold.
    ``export_difference`` is the largest difference between the ONNX graph and the library that trained it.
    """

    model: str
    artifact: Path
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    thresholds: dict[str, float]
    tau: float
    pooled: Comparison
    folds: tuple[FoldReport, ...]
    importance: dict[str, float]
    export_difference: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """All models of a run; ``warnings`` are sentences that whoever reads the figures has to know."""

    rows: int
    start: str
    end: str
    split_method: str
    simulated: bool
    products: tuple[str, ...]
    warnings: tuple[str, ...]
    models: tuple[ModelReport, ...]
