"""What a training run found, for people to read, for the command line to print and for a tracker to log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volspike.evaluation import Comparison
from volspike.training.request import TrainingRequest
from volspike.training.search import Search


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldReport:
    """One fold of one model: its rows, its own τ and threshold, and the figures on its test rows.

    ``block`` names the test rows, which no choice has looked at where ``is_final``. ``threshold_name`` is the threshold
    that was asked for, or what stands in where it does not exist. ``learned_rows`` of the training rows were learned
    from; ``left_out_rows`` of those, the validation and the test rows missed a value that the model needs. Only the
    final fold's ``comparison`` has intervals.
    """

    fold: int
    block: str
    is_final: bool
    tau: float
    threshold: float
    threshold_name: str
    calibration: str
    train_rows: int
    learned_rows: int
    validation_rows: int
    test_rows: int
    left_out_rows: int
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model beside the best baseline, and what was written.

    In ``pooled`` the test rows of the selection folds stand together, each scored by its own fold's model and judged
    with its own fold's τ and threshold; ``final`` is the final block's, and the same where there is no other fold.
    ``artifact`` and ``plots`` are None and empty for a baseline that was not asked for. ``export_difference`` is the
    largest difference between the ONNX graph and the library that trained it; ``thresholds``, ``tau`` and
    ``importance`` are those of the final fold, which is served.
    """

    model: str
    is_baseline: bool
    artifact: Path | None
    plots: tuple[Path, ...]
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    settings: Mapping[str, Any]
    search: Search
    thresholds: dict[str, float]
    threshold_name: str
    tau: float
    pooled: Comparison
    final: Comparison
    folds: tuple[FoldReport, ...]
    importance: dict[str, float]
    export_difference: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """All models of a run; ``warnings`` are sentences that whoever reads the figures has to know.

    ``baselines`` are those that ran beside the models without having been asked for. ``best_baseline`` is the best of
    all baselines and ``chosen`` the best of ``models``, both by pooled PR-AUC over the selection folds, or over the
    validation rows where ``has_selection`` is false. ``promoted`` is where the chosen model was put into service.
    """

    request: TrainingRequest
    rows: int
    start: str
    end: str
    split_method: str
    fold_by: str
    embargo_s: int
    weights: str
    feature_digest: str
    simulated: bool
    products: tuple[str, ...]
    has_selection: bool
    warnings: tuple[str, ...]
    models: tuple[ModelReport, ...]
    baselines: tuple[ModelReport, ...]
    best_baseline: str
    chosen: str
    promoted: Path | None
