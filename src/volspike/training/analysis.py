"""Feature analysis: the importance of each feature, redundant groups, and a recommended subset.

Only rows before the final block are used. ``write_analysis`` writes two plots, a table and the recommended names.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.feature_file import write_atomically
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation.metrics import average_precision
from volspike.evaluation.plots import COLOURS, png, remove_frame
from volspike.features import Scope
from volspike.models import DETECTORS
from volspike.progress import OnStep, Step
from volspike.training.folds import FitRows, TrainingData, prepare_training_data
from volspike.training.importance import (
    UNDEFINED,
    FoldImportance,
    PrAucLoss,
    clustered_order,
    drop_redundant,
    fold_importance,
    group_redundant,
    importance_folds,
    rank_correlation,
)
from volspike.training.request import ALL, TrainingRequest

MOST_CORRELATED: Final = 20_000
"""Rows over which correlations are computed."""

ONE_FOLD: Final = (
    "only one fold was evaluated: the spread is that of permutations and does not cover other days; record for longer"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """Options of a feature analysis; ``columns`` as in ``TrainingRequest``, but a core feature set is used entirely."""

    features: Path
    model: str = "lightgbm"
    columns: tuple[str, ...] | None = None
    folds: int = 5
    label_percentile: float = 90.0
    repeats: int = 3
    seed: int = 0

    def check(self) -> None:
        """Reject invalid options.

        Raises:
            UsageError: an unknown model, or fewer than one repeat.
        """
        if self.model not in DETECTORS or self.repeats < 1:
            raise UsageError(
                f"--repeats must be at least 1 and --model one of {DETECTORS.describe()}: "
                f"got {self.repeats} and {self.model!r}"
            )

    def training_request(self, dataset: Dataset) -> TrainingRequest:
        """The training run behind the analysis."""
        use_all = self.columns is None and dataset.facts.scope is Scope.CORE
        return TrainingRequest(
            features=self.features,
            models=(self.model,),
            columns=(ALL,) if use_all else self.columns,
            folds=self.folds,
            label_percentile=self.label_percentile,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureImportance:
    """One feature: the PR-AUC lost when it is permuted ``alone``, and ``together`` with its group.

    ``group`` counts from 0, the most important one; ``own`` is the model's own importance share. If the model does not
    use the feature (``is_used`` false), ``alone`` and ``own`` are NaN.
    """

    name: str
    group: int
    alone: PrAucLoss
    together: PrAucLoss
    own: float
    is_used: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureAnalysis:
    """Features in the order of the file's columns, their rank correlation (f, f), and the recommended ones."""

    request: AnalysisRequest
    simulated: bool
    folds: int
    rows: int
    pr_auc: float
    base_rate: float
    features: tuple[FeatureImportance, ...]
    correlation: NDArray[np.float64]
    recommended: tuple[str, ...]
    warnings: tuple[str, ...]


def analyze(request: AnalysisRequest, on_step: OnStep) -> FeatureAnalysis:
    """Fit the model on every selection fold and measure each feature's importance on the fold's test rows.

    If the final fold is the only one, its validation rows are used. ``on_step`` receives the name of each step.

    Raises:
        UsageError: an unknown model, or fewer than one repeat.
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: too few rows, or no fold whose held-out rows hold both classes.
        SchemaMismatch: the file lacks a requested column, or every column that the model can use.
    """
    request.check()
    on_step("reading")
    return analyze_dataset(load_dataset(request.features), request, on_step)


def analyze_dataset(dataset: Dataset, request: AnalysisRequest, on_step: OnStep) -> FeatureAnalysis:
    """As ``analyze``, on rows in memory."""
    request.check()
    data = prepare_training_data(request.training_request(dataset), dataset)
    on_step("correlation")
    correlation = rank_correlation(_values_before_final(data))
    group = group_redundant(correlation)
    folds = _measure_folds(data, permuted_groups(group), request, on_step)
    features = _combine_folds(data.columns, group, folds)
    recommended, warnings = recommend_features(features, correlation)
    y, score = np.concatenate([fold.y for fold in folds]), np.concatenate([fold.score for fold in folds])
    return FeatureAnalysis(
        request=request,
        simulated=dataset.facts.simulated,
        folds=len(folds),
        rows=len(y),
        pr_auc=average_precision(y, score),
        base_rate=float(y.mean()),
        features=features,
        correlation=correlation,
        recommended=recommended,
        warnings=(*data.fold_set.warnings, *((ONE_FOLD,) if len(folds) == 1 else ()), *warnings),
    )


def permuted_groups(group: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Each column alone, in order, and then the columns of each group, from 0."""
    alone = [np.array([column]) for column in range(len(group))]
    return alone + [np.flatnonzero(group == code) for code in range(int(group.max()) + 1)]


def recommend_features(
    features: Sequence[FeatureImportance], correlation: NDArray[np.float64]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The best feature of each group with a significant importance, most important group first; and warnings.

    Of two redundant features the less important is dropped. If no importance is significant, the result is the single
    best feature, with a warning.
    """
    used = [place for place, feature in enumerate(features) if feature.is_used]
    used.sort(key=lambda place: (features[place].group, -features[place].alone.mean, -features[place].own))
    significant = [place for place in used if features[place].together.is_significant]
    names = tuple(features[place].name for place in drop_redundant(significant or used[:1], correlation))
    if significant:
        return names, ()
    warning = (
        "no feature's importance is significantly above zero; the recommended one only has the highest: "
        "record for longer"
    )
    return names, (warning,)


def _values_before_final(data: TrainingData) -> NDArray[np.float64]:
    """The feature values of a sample of the rows before the final block."""
    rows = np.concatenate([data.fold_set.final.train, data.fold_set.final.validation])
    kept = FitRows.select(data.dataset, rows, MOST_CORRELATED).rows
    return data.dataset.inputs(data.columns, data.dataset.tau, kept)


def _measure_folds(
    data: TrainingData, permuted: Sequence[NDArray[np.int64]], request: AnalysisRequest, on_step: OnStep
) -> list[FoldImportance]:
    measured = []
    folds = list(importance_folds(data))
    for number, (fold, rows) in enumerate(folds):
        on_step(Step(f"{request.model}: fold {fold.number}", 0.1 + 0.9 * number / len(folds)))
        measured.append(fold_importance(data, fold, rows, permuted, request.repeats))
    usable = [fold for fold in measured if fold.has_both_classes]
    if not usable:
        raise NotEnoughData(
            f"{request.features}: no fold has held-out rows with both spikes and calm; record for longer"
        )
    return usable


def _combine_folds(
    names: Sequence[str], group: NDArray[np.int64], folds: Sequence[FoldImportance]
) -> tuple[FeatureImportance, ...]:
    losses = [PrAucLoss.of(lost) for lost in np.stack([fold.lost for fold in folds], axis=1)]
    alone, together = losses[: len(names)], losses[len(names) :]
    ranked = sorted(range(len(together)), key=lambda code: -together[code].mean)
    is_used = np.any([fold.is_used for fold in folds], axis=0)
    own = np.where(is_used, np.mean([fold.own for fold in folds], axis=0), np.nan)
    return tuple(
        FeatureImportance(
            name=name,
            group=ranked.index(int(group[place])),
            alone=alone[place] if is_used[place] else UNDEFINED,
            together=together[int(group[place])],
            own=float(own[place]),
            is_used=bool(is_used[place]),
        )
        for place, name in enumerate(names)
    )


MOST_BARS: Final = 40
_CELLS: Final = ((40, 0.26, 8.0), (120, 0.13, 6.0), (10_000, 0.085, 4.2))
"""Up to this many columns: inches per cell and font size in points, readable at 200 dots per inch."""
_GREY: Final = "#b8b8b8"


def plot_importance(analysis: FeatureAnalysis) -> bytes:
    """A bar with its spread over folds for each feature, next to the model's own share (PNG)."""
    used = [feature for feature in analysis.features if feature.is_used]
    shown = sorted(used, key=lambda feature: (feature.group, -feature.alone.mean))[:MOST_BARS][::-1]
    names = [feature.name for feature in shown]
    figure = Figure(figsize=(11.0, 1.9 + 0.24 * len(shown)), layout="constrained")
    losses, own = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    spread = np.nan_to_num([feature.together.spread for feature in shown])
    colours = [COLOURS[0] if feature.name in analysis.recommended else _GREY for feature in shown]
    error = {"ecolor": "#444444", "elinewidth": 1.0, "capsize": 2}
    losses.barh(
        names, [feature.together.mean for feature in shown], xerr=spread, color=colours, height=0.7, error_kw=error
    )
    losses.plot(
        [feature.alone.mean for feature in shown],
        names,
        "o",
        color=COLOURS[1],
        ms=4,
        ls="none",
        label="permuted alone (bar: with its redundant group)",
    )
    losses.axvline(0.0, color="#444444", lw=0.8)
    over = "folds" if analysis.folds > 1 else "permutations"
    losses.set_xlabel(f"PR-AUC lost on held-out rows (whisker: spread over {over})")
    losses.legend(loc="lower right", frameon=False, fontsize=9)
    own.barh(names, [feature.own for feature in shown], color=_GREY, height=0.7)
    own.set_xlabel(f"{analysis.request.model}'s own importance")
    own.xaxis.set_major_formatter("{x:.0%}")
    for axes in (losses, own):
        remove_frame(axes)
        axes.tick_params(labelsize=8)
        axes.margins(y=0.01)
    figure.suptitle(_title(analysis, len(used), len(shown)), x=0.01, ha="left", fontsize=11)
    return png(figure)


def plot_correlation(analysis: FeatureAnalysis) -> bytes:
    """The rank correlation of all features that are neither empty nor constant, redundant ones side by side (PNG)."""
    order = clustered_order(analysis.correlation)
    order = order[np.isfinite(np.diag(analysis.correlation))[order]]
    names = [analysis.features[place].name for place in order]
    cell, size = next(scale for most, *scale in _CELLS if len(names) <= most)
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
    excluded = len(analysis.features) - len(names)
    without = f"; {excluded} empty or constant excluded" if excluded else ""
    axes.set_title(f"Redundant features{market} (bold: recommended{without})", loc="left", fontsize=12)
    return png(figure)


def _title(analysis: FeatureAnalysis, used: int, shown: int) -> str:
    market = ", SIMULATED market" if analysis.simulated else ""
    most = f", the first {shown} of {used}" if shown < used else ""
    return (
        f"PR-AUC that {analysis.request.model} loses when a feature is permuted in time{most}{market}\n"
        f"PR-AUC {analysis.pr_auc:.3f}, base rate {analysis.base_rate:.3f}; blue: recommended"
    )


CSV_COLUMNS: Final = (
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
"""``at_least`` is the lower 95 % bound, ``spread`` the standard deviation over folds."""


def write_analysis(analysis: FeatureAnalysis, folder: Path) -> tuple[Path, ...]:
    """Write the plots, the table and the recommended names; each file is replaced in one step.

    Raises:
        UsageError: the folder cannot be written to.
    """
    contents = {
        "feature_importance.png": plot_importance(analysis),
        "correlation_heatmap.png": plot_correlation(analysis),
        "feature_importance.csv": importance_table(analysis).encode(),
        "recommended_features.txt": "".join(f"{name}\n" for name in analysis.recommended).encode(),
    }
    for name, content in contents.items():
        with write_atomically(folder / name) as part:
            part.write_bytes(content)
    return tuple(folder / name for name in contents)


def importance_table(analysis: FeatureAnalysis) -> str:
    """CSV with a line per feature, the most important group first; undefined values are empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for feature in sorted(analysis.features, key=lambda each: (each.group, not each.is_used, -each.alone.mean)):
        figures = [
            getattr(loss, name) for loss in (feature.together, feature.alone) for name in ("mean", "spread", "low")
        ]
        shown = ["" if isnan(value) else f"{value:.6g}" for value in (*figures, feature.own)]
        writer.writerow([feature.name, feature.group + 1, *shown, int(feature.name in analysis.recommended)])
    return text.getvalue()
