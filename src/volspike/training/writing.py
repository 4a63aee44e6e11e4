"""From a model fitted on every fold to its report and its artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from volspike.evaluation import Comparison, Scored, compare, per_hour, per_product, pooled
from volspike.models import DETECTORS, Artifact
from volspike.models.artifact import CompanionFacts, companion_files
from volspike.training.description import metadata, pictures
from volspike.training.fitting import Fitted
from volspike.training.judgement import Judgement
from volspike.training.judging import scored_beside
from volspike.training.material import Material, is_baseline
from volspike.training.report import FoldReport, ModelReport
from volspike.training.search import Search

RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model on every fold, oldest first, with the search for its settings and the seconds that both took."""

    fitted: tuple[Fitted, ...]
    search: Search
    seconds: float

    @property
    def served(self) -> Fitted:
        """The one of the final fold."""
        return self.fitted[-1]


def reported(material: Material, model: Trained, baseline: Trained, *, write: bool) -> ModelReport:
    """The figures of ``model`` beside ``baseline``; with ``write`` its artifact is written, too.

    Raises:
        UsageError: the artifact's folder cannot be written, or holds something else.
    """
    seed, name, against = material.request.seed, model.served.model, baseline.served.model
    parts = [scored_beside(material.dataset, *pair) for pair in zip(model.fitted, baseline.fitted, strict=True)]
    selection = pooled(parts[:-1]) if len(parts) > 1 else parts[-1]
    final = _compared(parts[-1], against, seed)
    over_folds = _compared(selection, against, seed) if len(parts) > 1 else final
    by_fold = [*(_compared(part, against, seed, resamples=0) for part in parts[:-1]), final]
    folds = _fold_reports(model.fitted, by_fold)
    directory = material.request.artifacts / name
    if write:
        simulated = material.dataset.facts.simulated
        judged = Judgement(
            pooled=over_folds,
            final=final,
            folds=folds,
            products=per_product(selection, material.dataset.products, baseline_name=against, resamples=0),
            hours=per_hour(selection, baseline_name=against, resamples=0),
        )
        facts = metadata(material, model.served, model.search, judged)
        extras = pictures(selection, model.served, against, simulated=simulated)
        if against != name:
            extras |= _companion(baseline.served)
        Artifact.save(directory, model.served.export.graph.SerializeToString(), facts, extras)
    return ModelReport(
        model=name,
        is_baseline=is_baseline(name),
        artifact=directory if write else None,
        plots=_plots(directory) if write else (),
        features=model.served.features,
        left_out=model.served.left_out,
        settings=model.served.settings,
        search=model.search,
        thresholds=model.served.thresholds,
        threshold_name=model.served.threshold_name,
        tau=model.served.fold.tau,
        pooled=over_folds,
        final=final,
        folds=folds,
        importance=model.served.importance,
        export_difference=max(part.export.difference for part in model.fitted),
        seconds=model.seconds,
    )


def _compared(scored: Scored, against: str, seed: int, resamples: int | None = None) -> Comparison:
    draws = RESAMPLES if resamples is None else resamples
    return compare(scored, baseline_name=against, baseline_is_probability=True, resamples=draws, seed=seed)


def _companion(baseline: Fitted) -> dict[str, bytes]:
    """The best baseline of the final fold, for whoever judges the model anew."""
    facts = CompanionFacts(
        model=baseline.model,
        features=baseline.features,
        threshold=baseline.threshold,
        accepts_missing=DETECTORS[baseline.model].accepts_missing,
    )
    return companion_files(baseline.export.graph.SerializeToString(), facts)


def _plots(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(directory.glob("*.png")))


def _fold_reports(fitted: Sequence[Fitted], comparisons: Sequence[Comparison]) -> tuple[FoldReport, ...]:
    return tuple(_fold_report(*pair) for pair in zip(fitted, comparisons, strict=True))


def _fold_report(fitted: Fitted, comparison: Comparison) -> FoldReport:
    fold = fitted.fold
    return FoldReport(
        fold=fold.number,
        block=fold.block,
        is_final=fold.is_final,
        tau=fold.tau,
        threshold=fitted.threshold,
        threshold_name=fitted.threshold_name,
        calibration=fitted.calibration,
        train_rows=len(fold.train),
        learned_rows=len(fold.learned.rows),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        left_out_rows=fitted.left_out_rows,
        comparison=comparison,
    )
