"""Evaluation of artifacts on rows of a feature file that are held out from their training.

Every artifact of a folder is scored by its ONNX graph and compared with the best baseline of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.splits import FIRST_PRICE_NS
from volspike.episodes import spike_runs
from volspike.errors import ArtifactMissing, DataError, NotEnoughData, SchemaMismatch
from volspike.evaluation import (
    Comparison,
    Reliability,
    RowGroup,
    Scored,
    ScoreMetrics,
    compare,
    evaluate_scores,
    per_hour,
    per_product,
    reliability,
)
from volspike.evaluation.comparison import PERSISTENCE
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import METADATA_FILE, Artifact, Metadata
from volspike.models.artifact import load_stored_baseline
from volspike.reporting.format import day_and_time

MOST_EPISODES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeEpisode:
    """A spike episode: ``index`` is its number in ``spike_runs``, ``peak`` its largest volatility in multiples of τ."""

    index: int
    product: str
    start: str
    peak: float


def largest_episodes(
    scored: Scored, volatility: NDArray[np.float64], products: tuple[str, ...], most: int = MOST_EPISODES
) -> tuple[SpikeEpisode, ...]:
    """The episodes with the largest peaks, in order of time; ``volatility`` (n,) is in multiples of τ."""
    series = scored.series()
    runs = spike_runs(series, scored.y)
    ordered = volatility[series.order]
    peaks = np.array([ordered[first : last + 1].max() for first, last in zip(runs.first, runs.last, strict=True)])
    largest = np.argsort(-peaks, kind="stable")[:most]
    episodes = [
        SpikeEpisode(
            index=int(index),
            product=products[int(scored.product[series.order[runs.first[index]]])],
            start=format_time(int(series.time[runs.first[index]])),
            peak=float(peaks[index]),
        )
        for index in largest
    ]
    return tuple(sorted(episodes, key=lambda episode: episode.start))


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """Row numbers, ascending, and a description of them."""

    rows: NDArray[np.int64]
    description: str


def select_held_out(features: Path, dataset: Dataset, metadata: Metadata) -> HeldOutRows:
    """The rows of the model's final block and all later ones, if ``dataset`` is the file it was trained on.

    Training purged and embargoed the rows before the final block. For any other file, and for a model with a
    stratified split or an unknown final block, only rows whose windows begin after its training data are held out.

    Raises:
        DataError: the file has as many rows as the model's, but another number of them in the final block.
    """
    facts = metadata.data
    start, end = parse_time(facts.start), parse_time(facts.end)
    is_same = _count(dataset, start, end) == facts.rows
    if metadata.split.method == "stratified":
        return _newer_rows(dataset, metadata, end, "its training rows were drawn at random (stratified split)")
    if not is_same or not facts.test_start:
        why = "it was trained on another file" if not is_same else "its metadata has no final block"
        return _newer_rows(dataset, metadata, end, why)
    first, last = parse_time(facts.test_start), parse_time(facts.test_end)
    found = _count(dataset, first, last)
    if found != facts.test_rows:
        raise DataError(
            f"{features} has {found:,} rows from {facts.test_start} to {facts.test_end}, {metadata.model} was "
            f"evaluated on {facts.test_rows:,} there: this is not its training file; retrain, or give that file"
        )
    rows = np.flatnonzero(dataset.time >= first)
    newer = len(rows) - found
    later = f", and {newer:,} rows after it" if newer else ""
    return HeldOutRows(rows, f"its final block, {found:,} rows from {day_and_time(facts.test_start)}{later}")


def _count(dataset: Dataset, first: int, last: int) -> int:
    return int(np.count_nonzero((dataset.time >= first) & (dataset.time <= last)))


def _newer_rows(dataset: Dataset, metadata: Metadata, end: int, why: str) -> HeldOutRows:
    """The rows whose windows begin after ``end``; no window reaches across the start of a session."""
    embargo_s = metadata.split.embargo_s or dataset.facts.feature_set.longest_window
    window_start = np.maximum(dataset.time - embargo_s * SECOND_NS - FIRST_PRICE_NS, dataset.session * SECOND_NS)
    rows = np.flatnonzero(window_start > end)
    training_end = day_and_time(metadata.data.end)
    return HeldOutRows(rows, f"{len(rows):,} rows whose windows begin after {training_end}, because {why}")


@dataclass(frozen=True, slots=True, eq=False)
class BaselineScores:
    """A baseline's scores (n,), NaN where undefined; ``warning`` says if it is a substitute."""

    name: str
    score: NDArray[np.float64]
    threshold: float
    is_probability: bool
    warning: str = ""


def score_baseline(model: Artifact, dataset: Dataset, rows: NDArray[np.int64]) -> BaselineScores:
    """The scores of the best baseline of the training, from the model's folder.

    If it is missing: the last minute's volatility as a multiple of τ, with threshold 1 (``persistence``).

    Raises:
        ArtifactCorrupt: the baseline in the folder is not what was written.
    """
    name = model.metadata.baseline
    if model.name == name:
        score = model.score_rows(dataset, rows)
        return BaselineScores(name, score, model.threshold, is_probability=True)
    stored = load_stored_baseline(model.directory)
    if stored is not None:
        tau = dataset.thresholds(model.metadata.spike_definition, model.metadata.tau)
        score = stored.probability(dataset.inputs(stored.facts.features, tau, rows))
        return BaselineScores(stored.facts.model, score, stored.facts.threshold, is_probability=True)
    warning = (
        f"its best baseline, {name}, is not in its folder; it is compared with the last minute's volatility instead"
    )
    tau = dataset.thresholds(model.metadata.spike_definition, model.metadata.tau)
    score = dataset.persistence[rows] / tau[rows]
    return BaselineScores(PERSISTENCE, score, 1.0, is_probability=False, warning=warning)


RESAMPLES: Final = 1000
PART_RESAMPLES: Final = 200
"""Resamples per product or hour: there are many of them, and their intervals are wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdMetrics:
    """The metrics at one of the model's thresholds."""

    name: str
    is_served: bool
    metrics: ScoreMetrics
    flagged_share: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModelEvaluation:
    """One model's metrics on held-out rows, described by ``held_out``; ``title`` is unique within the report.

    ``reliability`` is None without rows of both classes. ``episodes`` are the largest spike episodes of ``scored``.
    """

    title: str
    is_served: bool
    metadata: Metadata
    held_out: str
    scored: Scored
    comparison: Comparison
    products: tuple[RowGroup, ...]
    hours: tuple[RowGroup, ...]
    reliability: Reliability | None
    thresholds: tuple[ThresholdMetrics, ...]
    episodes: tuple[SpikeEpisode, ...]
    warnings: tuple[str, ...]

    @property
    def has_both_classes(self) -> bool:
        """Whether areas and curves are defined."""
        return 0 < int(self.scored.y.sum()) < len(self.scored)


def evaluate_artifact(
    artifact: Artifact, dataset: Dataset, held_out: HeldOutRows, *, title: str, is_served: bool
) -> ModelEvaluation:
    """Evaluate ``artifact`` on the held-out rows that both it and its best baseline can score.

    Raises:
        NotEnoughData: there is no such row.
        ArtifactCorrupt: the baseline's files are damaged.
    """
    baseline = score_baseline(artifact, dataset, held_out.rows)
    probability = artifact.score_rows(dataset, np.arange(len(dataset)))
    tau = dataset.thresholds(artifact.metadata.spike_definition, artifact.metadata.tau)
    threshold = artifact.alert_thresholds(dataset, probability, tau)
    probability = probability[held_out.rows]
    known = np.isfinite(probability) & np.isfinite(baseline.score) & np.isfinite(tau[held_out.rows])
    known &= np.isfinite(dataset.persistence[held_out.rows])
    if not known.any():
        raise NotEnoughData(f"{title}: none of {len(known):,} rows can be scored ({held_out.description})")
    rows, metadata = held_out.rows[known], artifact.metadata
    scored = Scored.of(
        dataset,
        rows,
        tau,
        probability=probability[known],
        threshold=threshold[rows],
        baseline=baseline.score[known],
        baseline_threshold=baseline.threshold,
        holds_budget=artifact.holds_budget,
    )
    both = 0 < int(scored.y.sum()) < len(scored)
    return ModelEvaluation(
        title=title,
        is_served=is_served,
        metadata=metadata,
        held_out=held_out.description,
        scored=scored,
        comparison=_compare(scored, baseline),
        products=_product_parts(scored, dataset, baseline),
        hours=_hour_parts(scored, baseline),
        reliability=reliability(scored.y, scored.probability, scored.time, resamples=RESAMPLES) if both else None,
        thresholds=tuple(_metrics_at(name, metadata, scored) for name in metadata.thresholds),
        episodes=largest_episodes(scored, dataset.future_volatility[rows] / tau[rows], dataset.products),
        warnings=_warnings(metadata, dataset, baseline, len(known) - len(rows)),
    )


def _compare(scored: Scored, baseline: BaselineScores) -> Comparison:
    is_probability = baseline.is_probability
    return compare(scored, baseline_name=baseline.name, baseline_is_probability=is_probability, resamples=RESAMPLES)


def _product_parts(scored: Scored, dataset: Dataset, baseline: BaselineScores) -> tuple[RowGroup, ...]:
    parts = per_product(scored, dataset.products, baseline_name=baseline.name, resamples=PART_RESAMPLES)
    return tuple(part for part in parts if part.rows)


def _hour_parts(scored: Scored, baseline: BaselineScores) -> tuple[RowGroup, ...]:
    return per_hour(scored, baseline_name=baseline.name, resamples=PART_RESAMPLES)


def _metrics_at(name: str, metadata: Metadata, scored: Scored) -> ThresholdMetrics:
    metrics = evaluate_scores(scored.y, scored.probability, metadata.thresholds[name])
    return ThresholdMetrics(
        name=name,
        is_served=name == metadata.served_threshold,
        metrics=metrics,
        flagged_share=(metrics.tp + metrics.fp) / metrics.rows,
    )


def _warnings(metadata: Metadata, dataset: Dataset, baseline: BaselineScores, unscored: int) -> tuple[str, ...]:
    warnings = [baseline.warning]
    if metadata.simulated != dataset.facts.simulated:
        trained_on, evaluated_on = ("a simulated", "a real") if metadata.simulated else ("a real", "a simulated")
        warnings.append(f"it was trained on {trained_on} market and is evaluated on {evaluated_on} one")
    if metadata.split.method == "stratified":
        warnings.append("its own metrics come from a stratified split: no evidence of skill")
    if unscored:
        warnings.append(
            f"{unscored:,} rows could not be scored: a value that the model or the baseline needs is missing"
        )
    return tuple(sentence for sentence in warnings if sentence)


PRODUCTION = "production"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EvaluationReport:
    """All evaluated models; ``left_out`` has a sentence for each artifact that could not be evaluated."""

    features: Path
    products: tuple[str, ...]
    start: str
    end: str
    rows: int
    every: str
    profile: str
    simulated: bool
    models: tuple[ModelEvaluation, ...]
    left_out: tuple[str, ...]


def artifact_folders(folder: Path) -> tuple[Path, ...]:
    """The artifact folders in ``folder``, sorted by name; ``folder`` itself if it is one.

    Raises:
        ArtifactMissing: there is none.
    """
    if (folder / METADATA_FILE).is_file():
        return (folder,)
    found = tuple(sorted(path.parent for path in folder.glob(f"[!.]*/{METADATA_FILE}")))
    if not found:
        raise ArtifactMissing(f"{folder}: no artifact found; train one with `volspike train --artifacts {folder}`")
    return found


def evaluate(features: Path, folder: Path, on_step: Callable[[str], None]) -> EvaluationReport:
    """Evaluate every artifact in ``folder``; the served one is not repeated if it is a copy of another.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is damaged.
        SchemaMismatch: one was trained on rows of another kind than the file's.
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: no artifact has held-out rows.
        DataError: the file has the size of an artifact's training file, but other rows.
    """
    artifacts = {path.name: Artifact.load(path) for path in artifact_folders(folder)}
    dataset = load_dataset(features)
    _check(features, artifacts.values(), dataset)
    served = artifacts[PRODUCTION].metadata.onnx_sha256 if PRODUCTION in artifacts else None
    models, left_out = [], []
    for name, artifact in _without_copies(artifacts).items():
        on_step(f"{name}: scoring held-out rows")
        try:
            models.append(_evaluate_one(features, name, artifact, dataset, served))
        except NotEnoughData as error:
            left_out.append(str(error))
    if not models:
        raise NotEnoughData(f"{features}: no model can be evaluated; {'; '.join(left_out)}")
    facts = dataset.facts
    return EvaluationReport(
        features=features,
        products=dataset.products,
        start=format_time(int(dataset.time.min())),
        end=format_time(int(dataset.time.max())),
        rows=len(dataset),
        every=str(facts.every),
        profile=str(facts.profile),
        simulated=facts.simulated,
        models=tuple(models),
        left_out=tuple(left_out),
    )


def _check(features: Path, artifacts: Iterable[Artifact], dataset: Dataset) -> None:
    for artifact in artifacts:
        artifact.check_dataset(dataset)
    if not np.isfinite(dataset.persistence).any():
        raise SchemaMismatch(f"{features} has no values of the last minute's volatility", missing=[PERSISTENCE])


def _without_copies(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Without the served model if another folder has the same graph."""
    others = {artifact.metadata.onnx_sha256 for name, artifact in artifacts.items() if name != PRODUCTION}
    return {
        name: artifact
        for name, artifact in artifacts.items()
        if name != PRODUCTION or artifact.metadata.onnx_sha256 not in others
    }


def _evaluate_one(
    features: Path,
    name: str,
    artifact: Artifact,
    dataset: Dataset,
    served: str | None,
) -> ModelEvaluation:
    title = name if name == artifact.name else f"{name} ({artifact.name})"
    held_out = select_held_out(features, dataset, artifact.metadata)
    if not len(held_out.rows):
        raise NotEnoughData(f"{title} is left out: {held_out.description}")
    is_served = artifact.metadata.onnx_sha256 == served
    return evaluate_artifact(artifact, dataset, held_out, title=title, is_served=is_served)
