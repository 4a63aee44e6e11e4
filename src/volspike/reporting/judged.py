"""One model on rows that it has not seen, beside its baseline: every figure that a report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
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
from volspike.labels import spikes
from volspike.models import Artifact, Metadata
from volspike.reporting.episodes import Episode, largest_episodes
from volspike.reporting.rival import Rival, columns_of
from volspike.reporting.unseen import Unseen

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
