"""All that was found of one model on rows that it had not seen, and how an artifact keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volspike.evaluation import Comparison, Part
from volspike.evaluation.metrics import known
from volspike.models.metadata import Figure, FoldFigures, PartFigures
from volspike.training.report import FoldReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A model beside the best baseline.

    ``pooled`` is over the test rows of the selection folds, which ``products`` and ``hours`` divide; ``final`` over the
    final block alone; ``folds`` has all of them, oldest first.
    """

    pooled: Comparison
    final: Comparison
    folds: tuple[FoldReport, ...]
    products: tuple[Part, ...]
    hours: tuple[Part, ...]

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Those of the pooled rows by name, and those of the final block with ``_final`` at the end of the name."""
        return self.pooled.figures() | {f"{name}_final": told for name, told in self.final.figures().items()}


def fold_figures(folds: Sequence[FoldReport]) -> tuple[FoldFigures, ...]:
    """Each fold's PR-AUC beside the best baseline's, None where undefined."""
    return tuple(_of_fold(fold) for fold in folds)


def part_figures(parts: Sequence[Part]) -> tuple[PartFigures, ...]:
    """The figures of each part that has rows."""
    return tuple(_of_part(part) for part in parts if part.rows)


def _of_fold(fold: FoldReport) -> FoldFigures:
    judged = fold.comparison
    ours, theirs = judged.model_intervals["pr_auc"], judged.baseline_intervals["pr_auc"]
    return FoldFigures(
        fold=fold.fold,
        block=fold.block,
        is_final=fold.is_final,
        test_rows=fold.test_rows,
        tau=fold.tau,
        base_rate=known(judged.model.base_rate),
        pr_auc=known(judged.model.pr_auc),
        pr_auc_low=known(ours.low),
        pr_auc_high=known(ours.high),
        baseline_pr_auc=known(judged.baseline.pr_auc),
        baseline_pr_auc_low=known(theirs.low),
        baseline_pr_auc_high=known(theirs.high),
    )


def _of_part(part: Part) -> PartFigures:
    if part.comparison is None:
        return PartFigures(label=part.label, rows=part.rows, spike_events=part.spike_events)
    model, baseline = part.comparison.model, part.comparison.baseline
    return PartFigures(
        label=part.label,
        rows=part.rows,
        spike_events=part.spike_events,
        base_rate=known(model.base_rate),
        pr_auc=known(model.pr_auc),
        baseline_pr_auc=known(baseline.pr_auc),
        precision=known(model.precision),
        recall=known(model.recall),
    )
