"""The largest spikes among judged rows.

Which rows of a feature file a model has never learned from, nor any choice of its training looked at.

What a model is judged beside: the best baseline of its training, or what every trader has.

One model on rows that it has not seen, beside its baseline: every figure that a report shows.

Every artifact of a folder, scored anew on a feature file's rows that it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.splits import FIRST_PRICE_NS
from volspike.episodes import SeriesOrder, spike_runs
from volspike.errors import ArtifactMissing, DataError, NotEnoughData, SchemaMismatch
from volspike.evaluation import (
    Comparison,
    Metrics,
    Part,
    Reliability,
    Scored,
    compare,
    judge,
    per_hour,
    per_product,
    reliability,
)
from volspike.evaluation.comparison import PERSISTENCE
from volspike.labels import spikes
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import METADATA_FILE, Artifact, Metadata
from volspike.models.artifact import load_stored_baseline
from volspike.reporting.format import day_and_time

MOST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A spike episode: ``index`` counts as ``spike_runs`` does, ``peak`` is its greatest volatility in τ."""

    index: int
    product: str
    start: str
    peak: float


def largest_episodes(
    scored: Scored, volatility: NDArray[np.float64], products: tuple[str, ...], most: int = MOST
) -> tuple[Episode, ...]:
    """The episodes of greatest peak, in order of time; ``volatility`` (n) is the rows' future one in multiples of τ."""
    series = SeriesOrder.of(scored.time, scored.product, scored.fold)
    runs = spike_runs(series, scored.y)
    ordered = volatility[series.order]
    peaks = np.array([ordered[first : last + 1].max() for first, last in zip(runs.first, runs.last, strict=True)])
    largest = np.argsort(-peaks, kind="stable")[:most]
    episodes = [
        Episode(
            index=int(index),
            product=products[int(scored.product[series.order[runs.first[index]]])],
            start=format_time(int(series.time[runs.first[index]])),
            peak=float(peaks[index]),
        )
        for index in largest
    ]
    return tuple(sorted(episodes, key=lambda episode: episode.start))


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Row numbers, ascending, and a sentence on which they are."""

    rows: NDArray[np.int64]
    told: str


def unseen_rows(features: Path, dataset: Dataset, metadata: Metadata) -> Unseen:
    """The final block of the model's training and every later row, if this is the file that it was trained on.

    Training purged and embargoed what lies before the final block. Of any other file, and of a model whose training
    drew its rows at random or does not tell the block, only those rows count that begin to look back after the last
    instant of its data.

    Raises:
        DataError: the file has as many rows as the model's, and another number of them in the final block.
    """
    facts = metadata.data
    start, end = parse_time(facts.start), parse_time(facts.end)
    is_same = _count(dataset, start, end) == facts.rows
    if metadata.split.method == "stratified":
        return _newer(dataset, metadata, end, "its training drew rows at random, so that")
    if not is_same or not facts.test_start:
        why = "this is another file than it was trained on" if not is_same else "it does not tell its final block"
        return _newer(dataset, metadata, end, f"{why}, so that")
    first, last = parse_time(facts.test_start), parse_time(facts.test_end)
    found = _count(dataset, first, last)
    if found != facts.test_rows:
        raise DataError(
            f"{features} has {found:,} rows from {facts.test_start} to {facts.test_end}, {metadata.model} was judged "
            f"on {facts.test_rows:,} there: it is not the file that it was trained on; train anew, or name that file"
        )
    rows = np.flatnonzero(dataset.time >= first)
    newer = len(rows) - found
    later = f", and {newer:,} rows after it" if newer else ""
    return Unseen(rows, f"the final block of its training, {found:,} rows from {day_and_time(facts.test_start)}{later}")


def _count(dataset: Dataset, first: int, last: int) -> int:
    return int(np.count_nonzero((dataset.time >= first) & (dataset.time <= last)))


def _newer(dataset: Dataset, metadata: Metadata, end: int, why: str) -> Unseen:
    """Rows that look back to after ``end``; a session's windows start anew."""
    embargo_s = metadata.split.embargo_s or dataset.facts.feature_set.longest_window
    look = np.maximum(dataset.time - embargo_s * SECOND_NS - FIRST_PRICE_NS, dataset.session * SECOND_NS)
    rows = np.flatnonzero(look > end)
    told = f"{why} only {len(rows):,} rows count, which look back to after {day_and_time(metadata.data.end)}"
    return Unseen(rows, told)


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """A baseline's score of the rows asked for, (n,), NaN where it has none; ``told`` says for what it stands in."""

    name: str
    score: NDArray[np.float64]
    threshold: float
    is_probability: bool
    told: str = ""


def rival_of(model: Artifact, dataset: Dataset, rows: NDArray[np.int64]) -> Rival:
    """The baseline that training found best, from the model's folder; where it is not there, the last minute's
    volatility in multiples of τ, called at 1, which orders rows as ``persistence`` does.

    Raises:
        ArtifactCorrupt: the baseline in the folder is not what was written.
    """
    name = model.metadata.baseline
    if model.name == name:
        score = model.probability(columns_of(dataset, rows, model.features))
        return Rival(name, score, model.threshold, is_probability=True)
    companion = load_stored_baseline(model.directory)
    if companion is not None:
        score = companion.probability(columns_of(dataset, rows, companion.facts.features))
        return Rival(companion.facts.model, score, companion.facts.threshold, is_probability=True)
    told = (
        f"its best baseline, {name}, is not in its folder, so that the last minute's volatility stands in, called at τ"
    )
    score = dataset.persistence[rows] / model.metadata.tau
    return Rival(PERSISTENCE, score, 1.0, is_probability=False, told=told)


def columns_of(dataset: Dataset, rows: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) the named features of these rows alone."""
    places = np.array([dataset.names.index(name) for name in names], np.int64)
    return np.ascontiguousarray(dataset.x[np.ix_(rows, places)])


RESAMPLES: Final = 1000
PART_RESAMPLES: Final = 200
"""Of a product or an hour: there are many of them, and their intervals are wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtThreshold:
    """The figures of one of the model's thresholds on the same rows."""

    name: str
    is_served: bool
    metrics: Metrics
    called_share: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Judged:
    """A model's figures; ``title`` names it among others, ``warnings`` are sentences about it alone.

    ``reliability`` is None without rows of both classes. ``episodes`` are the largest spikes, with their place in
    ``scored``.
    """

    title: str
    is_in_service: bool
    metadata: Metadata
    unseen: str
    scored: Scored
    comparison: Comparison
    products: tuple[Part, ...]
    hours: tuple[Part, ...]
    reliability: Reliability | None
    thresholds: tuple[AtThreshold, ...]
    episodes: tuple[Episode, ...]
    warnings: tuple[str, ...]

    @property
    def has_both_classes(self) -> bool:
        """Whether areas and curves are defined."""
        return 0 < int(self.scored.y.sum()) < len(self.scored)


def judged(
    artifact: Artifact, dataset: Dataset, unseen: Unseen, rival: Rival, *, title: str, is_in_service: bool
) -> Judged:
    """The figures of ``artifact`` on the unseen rows that both it and its rival could score.

    Raises:
        NotEnoughData: there is no such row.
    """
    probability = artifact.probability(columns_of(dataset, unseen.rows, artifact.features))
    known = np.isfinite(probability) & np.isfinite(rival.score) & np.isfinite(dataset.persistence[unseen.rows])
    if not known.any():
        raise NotEnoughData(f"{title}: none of {len(known):,} rows can be scored ({unseen.told})")
    rows, metadata = unseen.rows[known], artifact.metadata
    scored = Scored(
        time=dataset.time[rows],
        product=dataset.product[rows],
        fold=np.zeros(len(rows), np.int32),
        y=spikes(dataset.future_volatility[rows], metadata.tau),
        past_volatility=dataset.persistence[rows] / metadata.tau,
        probability=probability[known],
        threshold=np.full(len(rows), metadata.threshold),
        baseline=rival.score[known],
        baseline_threshold=np.full(len(rows), rival.threshold),
    )
    both = 0 < int(scored.y.sum()) < len(scored)
    return Judged(
        title=title,
        is_in_service=is_in_service,
        metadata=metadata,
        unseen=unseen.told,
        scored=scored,
        comparison=_compared(scored, rival),
        products=_products(scored, dataset, rival),
        hours=_hours(scored, rival),
        reliability=reliability(scored.y, scored.probability, scored.time, resamples=RESAMPLES) if both else None,
        thresholds=tuple(_at(name, metadata, scored) for name in metadata.thresholds),
        episodes=largest_episodes(scored, dataset.future_volatility[rows] / metadata.tau, dataset.products),
        warnings=_warnings(metadata, dataset, rival, len(known) - len(rows)),
    )


def _compared(scored: Scored, rival: Rival) -> Comparison:
    is_probability = rival.is_probability
    return compare(scored, baseline_name=rival.name, baseline_is_probability=is_probability, resamples=RESAMPLES)


def _products(scored: Scored, dataset: Dataset, rival: Rival) -> tuple[Part, ...]:
    parts = per_product(scored, dataset.products, baseline_name=rival.name, resamples=PART_RESAMPLES)
    return tuple(part for part in parts if part.rows)


def _hours(scored: Scored, rival: Rival) -> tuple[Part, ...]:
    return per_hour(scored, baseline_name=rival.name, resamples=PART_RESAMPLES)


def _at(name: str, metadata: Metadata, scored: Scored) -> AtThreshold:
    metrics = judge(scored.y, scored.probability, metadata.thresholds[name])
    return AtThreshold(
        name=name,
        is_served=name == metadata.served_threshold,
        metrics=metrics,
        called_share=(metrics.tp + metrics.fp) / metrics.rows,
    )


def _warnings(metadata: Metadata, dataset: Dataset, rival: Rival, unscored: int) -> tuple[str, ...]:
    told = [rival.told]
    if metadata.simulated != dataset.facts.simulated:
        learned, judged_on = ("a simulated", "a real") if metadata.simulated else ("a real", "a simulated")
        told.append(f"it learned from {learned} market and is judged on {judged_on} one")
    if metadata.split.method == "stratified":
        told.append("its own metrics are of a stratified split: no evidence of skill")
    if unscored:
        told.append(f"{unscored:,} rows could not be scored: they miss a value that it or the baseline needs")
    return tuple(sentence for sentence in told if sentence)


PRODUCTION = "production"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """What a report tells; ``left_out`` has a sentence for each artifact that could not be judged."""

    features: Path
    products: tuple[str, ...]
    start: str
    end: str
    rows: int
    every: str
    profile: str
    simulated: bool
    models: tuple[Judged, ...]
    left_out: tuple[str, ...]


def artifact_folders(folder: Path) -> tuple[Path, ...]:
    """The folders with an artifact in ``folder``, by name; itself, if it is one.

    Raises:
        ArtifactMissing: there is none.
    """
    if (folder / METADATA_FILE).is_file():
        return (folder,)
    found = tuple(sorted(path.parent for path in folder.glob(f"[!.]*/{METADATA_FILE}")))
    if not found:
        raise ArtifactMissing(f"{folder}: no artifact in it; train one with `volspike train --artifacts {folder}`")
    return found


def evaluate(features: Path, folder: Path, on_step: Callable[[str], None]) -> Evaluation:
    """Judge every artifact in ``folder``; the one in service, if it is a copy of another, is judged once.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is not what was written.
        SchemaMismatch: one was trained on rows of another kind than the file's.
        UnreadableFile: no feature file, or one without labels.
        NotEnoughData: no artifact has rows that it has not seen.
        DataError: the file is not the one that an artifact says it was trained on.
    """
    artifacts = {path.name: Artifact.load(path) for path in artifact_folders(folder)}
    dataset = load_dataset(features)
    _check(features, artifacts.values(), dataset)
    served = artifacts[PRODUCTION].metadata.onnx_sha256 if PRODUCTION in artifacts else None
    models, left_out = [], []
    for name, artifact in _once(artifacts).items():
        on_step(f"{name}: scored on rows that it has not seen")
        try:
            models.append(_judged(features, name, artifact, dataset, served))
        except NotEnoughData as error:
            left_out.append(str(error))
    if not models:
        raise NotEnoughData(f"{features}: nothing to report; {'; '.join(left_out)}")
    facts = dataset.facts
    return Evaluation(
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
        artifact.check_inputs(dataset.facts.digest, str(dataset.facts.every), str(dataset.facts.profile))
    if not np.isfinite(dataset.persistence).any():
        raise SchemaMismatch(f"{features} has no last-minute volatility", missing=[PERSISTENCE])


def _once(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Without the one in service where another folder has the same graph."""
    others = {artifact.metadata.onnx_sha256 for name, artifact in artifacts.items() if name != PRODUCTION}
    return {
        name: artifact
        for name, artifact in artifacts.items()
        if name != PRODUCTION or artifact.metadata.onnx_sha256 not in others
    }


def _judged(
    features: Path,
    name: str,
    artifact: Artifact,
    dataset: Dataset,
    served: str | None,
) -> Judged:
    title = name if name == artifact.name else f"{name} ({artifact.name})"
    unseen = unseen_rows(features, dataset, artifact.metadata)
    if not len(unseen.rows):
        raise NotEnoughData(f"{title} is left out: {unseen.told}")
    rival = rival_of(artifact, dataset, unseen.rows)
    is_in_service = artifact.metadata.onnx_sha256 == served
    return judged(artifact, dataset, unseen, rival, title=title, is_in_service=is_in_service)
