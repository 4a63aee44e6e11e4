"""Which features matter, which of them say the same, and which to take: judged on rows before the final block only.

Pictures of a feature analysis as PNG bytes, readable with twenty columns and with two hundred.

The four files of a feature analysis.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.feature_file import replacing
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation.metrics import average_precision
from volspike.evaluation.plots import COLOURS, bare, png
from volspike.features import Scope
from volspike.models import DETECTORS
from volspike.training.folds import Learned, Material, gathered, values
from volspike.training.importance import (
    UNTOLD,
    Drop,
    FoldFinding,
    chosen,
    clustered_order,
    groups,
    judge_fold,
    rank_correlation,
    unseen_rows,
)
from volspike.training.request import ALL, TrainingRequest

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


MOST_BARS: Final = 40
_CELLS: Final = ((40, 0.26, 8.0), (120, 0.13, 6.0), (10_000, 0.085, 4.2))
"""Up to so many columns: inches of each, and points of its name, which at 200 dots an inch is still read."""
_GREY: Final = "#b8b8b8"


def importance_picture(analysis: Analysis) -> bytes:
    """A bar with its spread over folds for each feature, and beside it the model's own share."""
    taken = [feature for feature in analysis.features if feature.is_taken]
    shown = sorted(taken, key=lambda feature: (feature.group, -feature.alone.mean))[:MOST_BARS][::-1]
    names = [feature.name for feature in shown]
    figure = Figure(figsize=(11.0, 1.9 + 0.24 * len(shown)), layout="constrained")
    judged, own = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    spread = np.nan_to_num([feature.together.spread for feature in shown])
    colours = [COLOURS[0] if feature.name in analysis.recommended else _GREY for feature in shown]
    error = {"ecolor": "#444444", "elinewidth": 1.0, "capsize": 2}
    judged.barh(
        names, [feature.together.mean for feature in shown], xerr=spread, color=colours, height=0.7, error_kw=error
    )
    judged.plot(
        [feature.alone.mean for feature in shown],
        names,
        "o",
        color=COLOURS[1],
        ms=4,
        ls="none",
        label="moved alone; bar: with all that say the same",
    )
    judged.axvline(0.0, color="#444444", lw=0.8)
    over = "folds" if analysis.folds > 1 else "permutations"
    judged.set_xlabel(f"PR-AUC lost on unseen rows (whisker: spread over {over})")
    judged.legend(loc="lower right", frameon=False, fontsize=9)
    own.barh(names, [feature.own for feature in shown], color=_GREY, height=0.7)
    own.set_xlabel(f"{analysis.request.model}'s own share")
    own.xaxis.set_major_formatter("{x:.0%}")
    for axes in (judged, own):
        bare(axes)
        axes.tick_params(labelsize=8)
        axes.margins(y=0.01)
    figure.suptitle(_title(analysis, len(taken), len(shown)), x=0.01, ha="left", fontsize=11)
    return png(figure)


def correlation_picture(analysis: Analysis) -> bytes:
    """The rank correlation of every pair of features that are told and change, those that say the same side by side."""
    order = clustered_order(analysis.correlation)
    order = order[np.isfinite(np.diag(analysis.correlation))[order]]
    names = [analysis.features[place].name for place in order]
    cell, size = next(look for most, *look in _CELLS if len(names) <= most)
    inches = max(cell * len(names), 4.5)
    figure = Figure(figsize=(inches + 2.6, inches + 2.0), layout="constrained")
    axes = figure.add_subplot()
    shown = np.ma.masked_invalid(analysis.correlation[np.ix_(order, order)])
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest", aspect="equal")
    axes.set_facecolor("#e0e0e0")
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        if label.get_text() in analysis.recommended:
            label.set(color=COLOURS[0], fontweight="bold")
    figure.colorbar(image, ax=axes, shrink=0.5, label="Spearman's rank correlation")
    market = ", SIMULATED market" if analysis.simulated else ""
    untold = len(analysis.features) - len(names)
    without = f"; without {untold} that are not told" if untold else ""
    axes.set_title(f"Which features say the same{market} (bold: recommended{without})", loc="left", fontsize=12)
    return png(figure)


def _title(analysis: Analysis, taken: int, shown: int) -> str:
    market = ", SIMULATED market" if analysis.simulated else ""
    most = f", the first {shown} of {taken}" if shown < taken else ""
    return (
        f"What {analysis.request.model} loses when a feature tells of another time{most}{market}\n"
        f"PR-AUC {analysis.pr_auc:.3f}, base rate {analysis.base_rate:.3f}; blue: recommended"
    )


HEADS: Final = (
    "feature",
    "group",
    "pr_auc_lost_with_group",
    "spread_with_group",
    "at_least_with_group",
    "pr_auc_lost_alone",
    "spread_alone",
    "at_least_alone",
    "models_own_share",
    "recommended",
)
"""Columns of the CSV. ``at_least`` is the lower 95 % end, ``spread`` the standard deviation over folds."""


def write_analysis(analysis: Analysis, folder: Path) -> tuple[Path, ...]:
    """Writes the pictures, the table and the names, each whole or not at all; the recommended names come last.

    Raises:
        UsageError: the folder cannot be written to.
    """
    contents = {
        "feature_importance.png": importance_picture(analysis),
        "correlation_heatmap.png": correlation_picture(analysis),
        "feature_importance.csv": importance_table(analysis).encode(),
        "recommended_features.txt": "".join(f"{name}\n" for name in analysis.recommended).encode(),
    }
    for name, content in contents.items():
        with replacing(folder / name) as part:
            part.write_bytes(content)
    return tuple(folder / name for name in contents)


def importance_table(analysis: Analysis) -> str:
    """A line per feature, the most important group first; what is undefined is empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    for feature in sorted(analysis.features, key=lambda each: (each.group, not each.is_taken, -each.alone.mean)):
        figures = [
            getattr(drop, name) for drop in (feature.together, feature.alone) for name in ("mean", "spread", "low")
        ]
        shown = ["" if isnan(value) else f"{value:.6g}" for value in (*figures, feature.own)]
        writer.writerow([feature.name, feature.group + 1, *shown, int(feature.name in analysis.recommended)])
    return text.getvalue()
