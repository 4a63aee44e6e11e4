"""Which features matter, which of them say the same, and which to take: judged on rows before the final block only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation.metrics import average_precision
from volspike.features import Scope
from volspike.models import DETECTORS
from volspike.training.material import Material, gathered
from volspike.training.permutation import UNTOLD, Drop
from volspike.training.redundancy import chosen, groups, rank_correlation
from volspike.training.request import ALL, TrainingRequest
from volspike.training.sampling import Learned, values
from volspike.training.unseen import FoldFinding, judge_fold, unseen_rows

MOST_CORRELATED: Final = 20_000

ONE_FOLD: Final = (
    "one fold only was judged: the spread is that of permutations and knows nothing of other days; record for longer"
)

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """What to analyze; ``columns`` as in ``TrainingRequest``, but a core feature set is judged whole."""

    features: Path
    model: str = "lightgbm"
    columns: tuple[str, ...] | None = None
    folds: int = 5
    label_percentile: float = 90.0
    repeats: int = 3
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            UsageError: no such model, or a number of repeats below 1.
        """
        if self.model not in DETECTORS or self.repeats < 1:
            raise UsageError(
                f"repeats must be at least 1 and the model one of {', '.join(DETECTORS)}: "
                f"were {self.repeats} and {self.model!r}"
            )

    def training(self, dataset: Dataset) -> TrainingRequest:
        """What the model is trained on."""
        whole = self.columns is None and dataset.facts.scope is Scope.CORE
        return TrainingRequest(
            features=self.features,
            models=(self.model,),
            columns=(ALL,) if whole else self.columns,
            folds=self.folds,
            label_percentile=self.label_percentile,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFinding:
    """One feature. ``alone`` is the PR-AUC lost when it tells of another time, ``together`` when all of its group do.

    ``group`` counts from 0, the most important one; ``own`` is the share that the model itself gives the feature. Where
    the model does not take it (``is_taken`` false) both ``alone`` and ``own`` are NaN.
    """

    name: str
    group: int
    alone: Drop
    together: Drop
    own: float
    is_taken: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """Findings in the order of the file's columns, their rank correlation (f, f), and the features to take."""

    request: AnalysisRequest
    simulated: bool
    folds: int
    rows: int
    pr_auc: float
    base_rate: float
    features: tuple[FeatureFinding, ...]
    correlation: NDArray[np.float64]
    recommended: tuple[str, ...]
    warnings: tuple[str, ...]


def analyze(request: AnalysisRequest, on_step: OnStep) -> Analysis:
    """Fits the model on every fold but the final one and judges each feature on the test rows that it has not seen.

    Where there is the final fold alone, its validation rows are judged. ``on_step`` is told what begins.

    Raises:
        UsageError: no such model, or a number of repeats below 1.
        UnreadableFile: the feature file is none, or has no labels.
        NotEnoughData: too few rows, or no fold whose unseen rows are of both classes.
        SchemaMismatch: a column asked for is not in the file, or the model finds none that it can do with.
    """
    request.check()
    on_step("reading")
    return analyze_dataset(load_dataset(request.features), request, on_step)


def analyze_dataset(dataset: Dataset, request: AnalysisRequest, on_step: OnStep) -> Analysis:
    """As ``analyze``, on rows that are loaded already."""
    request.check()
    material = gathered(request.training(dataset), dataset)
    on_step("correlation")
    correlation = rank_correlation(_before_final(material))
    group = groups(correlation)
    judged = _judged(material, moved_together(group), request, on_step)
    features = _findings(material.columns, group, judged)
    recommended, told = recommend(features, correlation)
    y, score = np.concatenate([fold.y for fold in judged]), np.concatenate([fold.score for fold in judged])
    return Analysis(
        request=request,
        simulated=dataset.facts.simulated,
        folds=len(judged),
        rows=len(y),
        pr_auc=average_precision(y, score),
        base_rate=float(y.mean()),
        features=features,
        correlation=correlation,
        recommended=recommended,
        warnings=(*material.folds.told, *((ONE_FOLD,) if len(judged) == 1 else ()), *told),
    )


def moved_together(group: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Each column alone, in order, and then the columns of each group, from 0."""
    alone = [np.array([column]) for column in range(len(group))]
    return alone + [np.flatnonzero(group == code) for code in range(int(group.max()) + 1)]


def recommend(
    features: Sequence[FeatureFinding], correlation: NDArray[np.float64]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The best of each group whose importance can be told from zero, the most important group first; and warnings.

    Of two that say the same the later one is left out. Where nothing can be told from zero it is the best of all, with
    a sentence that says so.
    """
    taken = [place for place, feature in enumerate(features) if feature.is_taken]
    taken.sort(key=lambda place: (features[place].group, -features[place].alone.mean, -features[place].own))
    real = [place for place in taken if features[place].together.is_real]
    best = chosen(real or taken[:1], correlation)
    if real:
        return tuple(features[place].name for place in best), ()
    nothing = (
        "no feature's importance can be told from zero, the one recommended is only the highest: record for longer"
    )
    return tuple(features[place].name for place in best), (nothing,)


def _before_final(material: Material) -> NDArray[np.float64]:
    """Rows before the final block, thinned: what correlations are taken over."""
    rows = np.concatenate([material.folds.final.train, material.folds.final.validation])
    kept = Learned.of(material.dataset, rows, MOST_CORRELATED).rows
    return values(material.dataset, kept, material.columns)


def _judged(
    material: Material, moved: Sequence[NDArray[np.int64]], request: AnalysisRequest, on_step: OnStep
) -> list[FoldFinding]:
    found = []
    for fold, rows in unseen_rows(material):
        on_step(f"{request.model}: fold {fold.number}")
        found.append(judge_fold(material, fold, rows, moved, request.repeats))
    judged = [finding for finding in found if finding.is_judgeable]
    if not judged:
        raise NotEnoughData(
            f"{request.features}: the rows of no fold that its model has not seen hold both spikes and calm; "
            "record for longer"
        )
    return judged


def _findings(
    names: Sequence[str], group: NDArray[np.int64], judged: Sequence[FoldFinding]
) -> tuple[FeatureFinding, ...]:
    drops = [Drop.of(lost) for lost in np.stack([fold.lost for fold in judged], axis=1)]
    alone, together = drops[: len(names)], drops[len(names) :]
    ranked = sorted(range(len(together)), key=lambda code: -together[code].mean)
    is_taken = np.any([fold.is_taken for fold in judged], axis=0)
    own = np.where(is_taken, np.mean([fold.own for fold in judged], axis=0), np.nan)
    return tuple(
        FeatureFinding(
            name=name,
            group=ranked.index(int(group[place])),
            alone=alone[place] if is_taken[place] else UNTOLD,
            together=together[int(group[place])],
            own=float(own[place]),
            is_taken=bool(is_taken[place]),
        )
        for place, name in enumerate(names)
    )
