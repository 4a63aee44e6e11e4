"""Evaluation of artifacts on rows of a feature file that are held out from their training.

Every artifact of a folder is scored by its ONNX graph and compared with the best baseline of its training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.splits import DEFAULT_FRACTIONS, FIRST_PRICE_NS, Fractions, stratified
from volspike.episodes import spike_runs
from volspike.errors import ArtifactMissing, DataError, NotEnoughData, SchemaMismatch
from volspike.evaluation import (
    AlarmPoint,
    Comparison,
    Reliability,
    RowGroup,
    Scored,
    ScoreMetrics,
    SpikeTimeline,
    alarm_curve,
    compare,
    evaluate_scores,
    per_hour,
    per_product,
    rank_unscored_last,
    reliability,
)
from volspike.evaluation.comparison import PERSISTENCE
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.market.product import split_product
from volspike.models import METADATA_FILE, Artifact, Metadata
from volspike.models.artifact import load_stored_baseline
from volspike.models.evidence import LimitationKind, all_limitations, dataset_markets, has_evidence, texts
from volspike.progress import OnStep, counted
from volspike.reporting.alert_history import AlertRecord, SpikeSpan, list_alerts, list_spans
from volspike.reporting.backtest import baseline_scores, calibrated, rank_baselines, with_lowest
from volspike.reporting.format import day_and_time

MOST_EPISODES: Final = 3

POOLED: Final = "pooled"
"""The split method of the shipped models, which are trained on all rows of many recordings."""


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
    """Row numbers, ascending, and a description of them.

    ``is_evidence`` is False for rows that training saw, or whose neighbours it saw: figures on them show no skill.
    """

    rows: NDArray[np.int64]
    description: str
    is_evidence: bool = True


def select_held_out(features: Path, dataset: Dataset, metadata: Metadata) -> HeldOutRows:
    """The rows of the model's final block and all later ones, if ``dataset`` is the file it was trained on.

    Training purged and embargoed the rows before the final block. For any other file, and for a model with a
    stratified split or an unknown final block, only rows whose windows begin after its training data are held out; for
    a shipped model, which learned from many recordings, those outside the recordings of the same products. Without any
    such row the rows are no evidence: the test rows of the stratified split, or all rows.

    Raises:
        DataError: the file has as many rows as the model's, but another number of them in the final block.
    """
    facts = metadata.data
    start, end = parse_time(facts.start), parse_time(facts.end)
    is_same = _count(dataset, start, end) == facts.rows
    is_random = not has_evidence(metadata)
    if is_random or not is_same or not facts.test_start:
        why = "its training rows were drawn at random (stratified split)" if is_random else ""
        why = why or ("it was trained on another file" if not is_same else "its metadata has no final block")
        if metadata.split.method == POOLED and metadata.markets:
            held_out = _rows_outside_recordings(dataset, metadata)
        else:
            held_out = _newer_rows(dataset, metadata, end, why)
        return held_out if len(held_out.rows) else _rows_without_evidence(dataset, metadata, is_same=is_same)
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


def _rows_outside_recordings(dataset: Dataset, metadata: Metadata) -> HeldOutRows:
    """The rows whose windows touch no training recording of their product, at whatever venue it was made."""
    embargo = dataset.facts.feature_set.longest_window * SECOND_NS
    is_outside = np.ones(len(dataset), np.bool_)
    for code, name in enumerate(dataset.products):
        of_product = dataset.product == code
        for market in metadata.markets:
            if market.product == split_product(name)[1]:
                begin = parse_time(market.start or metadata.data.start) - embargo
                end = parse_time(market.end or metadata.data.end) + embargo
                is_outside &= ~(of_product & (dataset.time >= begin) & (dataset.time <= end))
    rows = np.flatnonzero(is_outside)
    return HeldOutRows(rows, f"{len(rows):,} rows outside the recordings that it was trained on")


def _rows_without_evidence(dataset: Dataset, metadata: Metadata, *, is_same: bool) -> HeldOutRows:
    """The test rows of a stratified split if this is the file that was split, otherwise all rows."""
    facts = metadata.data
    if not has_evidence(metadata) and is_same and len(dataset) == facts.rows:
        rows = stratified(dataset, _fractions(metadata), metadata.seed).test
        if len(rows) == facts.test_rows:
            description = (
                f"the {len(rows):,} test rows of its stratified split, which overlap its training rows in time"
            )
            return HeldOutRows(rows, description, is_evidence=False)
    rows = np.arange(len(dataset))
    end = day_and_time(facts.end)
    description = f"all {len(rows):,} rows, none of them held out: its training data end {end}"
    return HeldOutRows(rows, description, is_evidence=False)


def _fractions(metadata: Metadata) -> Fractions:
    fractions = metadata.split.fractions
    return (fractions[0], fractions[1], fractions[2]) if len(fractions) == 3 else DEFAULT_FRACTIONS


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

    Without ``is_evidence`` its training saw these rows or their neighbours. ``reliability`` is None without rows of
    both classes. ``episodes`` are the largest spike episodes of ``scored``. ``alerts`` are those at the served
    threshold, ``spans`` all spike events. ``curves`` are onset recall over alarm minutes, of the model and then of the
    strongest baselines on these rows.
    """

    title: str
    is_served: bool
    metadata: Metadata
    held_out: str
    is_evidence: bool
    scored: Scored
    comparison: Comparison
    products: tuple[RowGroup, ...]
    hours: tuple[RowGroup, ...]
    reliability: Reliability | None
    thresholds: tuple[ThresholdMetrics, ...]
    episodes: tuple[SpikeEpisode, ...]
    alerts: tuple[AlertRecord, ...]
    spans: tuple[SpikeSpan, ...]
    curves: Mapping[str, tuple[AlarmPoint, ...]]
    warnings: tuple[str, ...]

    @property
    def has_both_classes(self) -> bool:
        """Whether areas and curves are defined."""
        return 0 < int(self.scored.y.sum()) < len(self.scored)


def evaluate_artifact(
    artifact: Artifact, dataset: Dataset, held_out: HeldOutRows, *, title: str, is_served: bool, venue: str | None
) -> ModelEvaluation:
    """Evaluate ``artifact`` on the held-out rows; one that it or its best baseline cannot score counts as missed.

    Raises:
        NotEnoughData: it can score none of them, or τ or the last minute's volatility of all is unknown.
        ArtifactCorrupt: the baseline's files are damaged.
    """
    baseline = score_baseline(artifact, dataset, held_out.rows)
    probability = artifact.score_rows(dataset, np.arange(len(dataset)))
    tau = dataset.thresholds(artifact.metadata.spike_definition, artifact.metadata.tau)
    threshold = artifact.alert_thresholds(dataset, probability, tau)
    probability = probability[held_out.rows]
    known = np.isfinite(tau[held_out.rows]) & np.isfinite(dataset.persistence[held_out.rows])
    rows, metadata = held_out.rows[known], artifact.metadata
    if not np.isfinite(probability[known]).any():
        raise NotEnoughData(f"{title}: none of {len(known):,} rows can be scored ({held_out.description})")
    ranked, unscored = rank_unscored_last(
        probability[known], min(float(threshold.min()), *metadata.thresholds.values())
    )
    baseline_ranked, baseline_unscored = rank_unscored_last(baseline.score[known], baseline.threshold)
    scored = Scored.of(
        dataset,
        rows,
        tau,
        probability=ranked,
        threshold=threshold[rows],
        baseline=baseline_ranked,
        baseline_threshold=baseline.threshold,
        holds_budget=artifact.holds_budget,
    )
    both = 0 < int(scored.y.sum()) < len(scored)
    timeline = SpikeTimeline.of(scored)
    alarms = timeline.alarms(scored.probability, scored.threshold)
    return ModelEvaluation(
        title=title,
        is_served=is_served,
        metadata=metadata,
        held_out=held_out.description,
        is_evidence=held_out.is_evidence,
        scored=scored,
        comparison=_compare(scored, baseline),
        products=_product_parts(scored, dataset, baseline),
        hours=_hour_parts(scored, baseline),
        reliability=reliability(scored.y, scored.probability, scored.time, resamples=RESAMPLES) if both else None,
        thresholds=tuple(_metrics_at(name, metadata, scored) for name in metadata.thresholds),
        episodes=largest_episodes(scored, dataset.future_volatility[rows] / tau[rows], dataset.products),
        alerts=list_alerts(scored, timeline, alarms, dataset.products),
        spans=list_spans(scored, timeline, alarms, dataset.products),
        curves={title: tuple(alarm_curve(timeline, scored.probability))}
        | _baseline_curves(artifact, dataset, rows, tau, scored, timeline),
        warnings=_warnings(metadata, dataset, venue, baseline, (unscored, baseline_unscored, len(known) - len(rows))),
    )


MOST_BASELINES: Final = 2
"""Baselines whose onset recall is compared with the model's over all alarm minutes."""


def _baseline_curves(
    artifact: Artifact,
    dataset: Dataset,
    rows: NDArray[np.int64],
    tau: NDArray[np.float64],
    scored: Scored,
    timeline: SpikeTimeline,
) -> dict[str, tuple[AlarmPoint, ...]]:
    """The curves of the baselines with the greatest PR-AUC on these rows, as a backtest draws them."""
    scores = {name: with_lowest(score)[0] for name, score in baseline_scores(artifact, dataset, rows, tau).items()}
    scores.pop(artifact.name, None)
    best = [*rank_baselines(scored, scores)][:MOST_BASELINES]
    return {name: tuple(alarm_curve(timeline, calibrated(scores[name], scored.y))) for name in best}


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


def _warnings(
    metadata: Metadata, dataset: Dataset, venue: str | None, baseline: BaselineScores, counts: tuple[int, int, int]
) -> tuple[str, ...]:
    """``counts`` are rows without a score of the model, of the baseline, and rows that were left out."""
    facts = dataset.facts
    limitations = all_limitations(
        metadata, dataset_markets(dataset, venue), simulated=facts.simulated, profile=facts.profile
    )
    # which rows are held out is decided row by row, and stated in the description of the rows
    warnings = [baseline.warning, *texts(one for one in limitations if one.kind is not LimitationKind.IN_SAMPLE)]
    unscored, baseline_unscored, left_out = counts
    for name, count in (("it", unscored), (f"its baseline {baseline.name}", baseline_unscored)):
        if count:
            warnings.append(
                f"{count:,} rows lack a value that {name} needs: they rank last, and their spikes are missed"
            )
    if left_out:
        warnings.append(f"{left_out:,} rows are left out: their threshold τ or last minute's volatility is unknown")
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

    @property
    def without_evidence(self) -> tuple[str, ...]:
        """The titles of the models whose figures are no evidence."""
        return tuple(model.title for model in self.models if not model.is_evidence)


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


def evaluate(features: Path, folder: Path, on_step: OnStep, *, venue: str | None = None) -> EvaluationReport:
    """Evaluate every artifact in ``folder``; the served one is not repeated if it is a copy of another.

    ``venue`` is that of products whose name states none.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is damaged.
        SchemaMismatch: one was trained on rows of another kind than the file's.
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: no artifact can score a row.
        DataError: the file has the size of an artifact's training file, but other rows.
    """
    artifacts = {path.name: Artifact.load(path) for path in artifact_folders(folder)}
    dataset = load_dataset(features)
    _check(features, artifacts.values(), dataset)
    served = artifacts[PRODUCTION].metadata.onnx_sha256 if PRODUCTION in artifacts else None
    models, left_out = [], []
    evaluated = _without_copies(artifacts)
    on_step = counted(on_step, len(evaluated))
    for name, artifact in evaluated.items():
        on_step(f"{name}: scoring held-out rows")
        try:
            models.append(_evaluate_one(features, name, artifact, dataset, served, venue))
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
    venue: str | None,
) -> ModelEvaluation:
    title = name if name == artifact.name else f"{name} ({artifact.name})"
    held_out = select_held_out(features, dataset, artifact.metadata)
    is_served = artifact.metadata.onnx_sha256 == served
    return evaluate_artifact(artifact, dataset, held_out, title=title, is_served=is_served, venue=venue)
