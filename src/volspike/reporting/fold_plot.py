"""PR-AUC fold by fold, as an artifact tells it."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from volspike.evaluation import Interval
from volspike.evaluation.plots import fold_bars
from volspike.models import Metadata
from volspike.models.metadata import FoldFigures


def fold_picture(folds: Sequence[FoldFigures], metadata: Metadata) -> bytes:
    """Bars of the model and, unless it is that itself, of the best baseline (PNG)."""
    scores = {metadata.model: [_told(fold.pr_auc) for fold in folds]}
    spans = {metadata.model: [Interval(_told(fold.pr_auc_low), _told(fold.pr_auc_high)) for fold in folds]}
    if metadata.baseline != metadata.model:
        scores[metadata.baseline] = [_told(fold.baseline_pr_auc) for fold in folds]
        ends = [(fold.baseline_pr_auc_low, fold.baseline_pr_auc_high) for fold in folds]
        spans[metadata.baseline] = [Interval(_told(low), _told(high)) for low, high in ends]
    names = [f"{fold.fold}{' final' if fold.is_final else ''}\n{_short(fold.block)}" for fold in folds]
    base = [_told(fold.base_rate) for fold in folds]
    return fold_bars(names, scores, spans, base, title="PR-AUC fold by fold")


def _short(block: str) -> str:
    """A block's name without the words and the year that every bar would repeat."""
    day, _, moment = block.removeprefix("from ").removesuffix("Z").partition("T")
    return f"{day[5:]} {moment[:5]}".strip()


def _told(value: float | None) -> float:
    return nan if value is None else value
