"""How far data has moved, in the three words that the decision matrix knows.

Whether newer rows are distributed as older ones were, feature by feature, and how badly they are not.

A look for drift must not cry at every turn of a market that is as it always was: see ``block_permutation``. A feature
whose memory is too long for the samples, or that has no values, is not judged, and an unjudged one has not drifted.

One feature file as two samples: its older rows as reference, its newer ones as what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import isfinite, nan
from typing import Final, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.market import SECOND_NS, format_time
from volspike.monitoring.block_permutation import (
    GRID,
    PERMUTATIONS,
    BlockShares,
    DriftSample,
    discoveries,
    distances,
    memory,
)
from volspike.monitoring.results import DriftResult, ResultSeverity

LOW_ABOVE: Final = 0.05
HIGH_UP_TO: Final = 0.01
DRIFTED_ABOVE: Final = 0.50
ACT_ABOVE: Final = 0.75


class Severity(StrEnum):
    """Of one feature by its p-value, of a data set by the share of its features that drifted."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def is_drift(self) -> bool:
        """Whether it counts as drift."""
        return self is not Severity.LOW


def feature_severity(p_value: float) -> Severity:
    """Low above 0.05, high up to 0.01; NaN, which is a feature that could not be judged, is no drift.

    >>> feature_severity(0.05), feature_severity(0.01)
    (<Severity.MEDIUM: 'medium'>, <Severity.HIGH: 'high'>)
    """
    if p_value <= HIGH_UP_TO:
        return Severity.HIGH
    return Severity.MEDIUM if p_value <= LOW_ABOVE else Severity.LOW


def dataset_severity(share: float) -> Severity:
    """Of the share of features that drifted: a data set has drifted above one half, and is acted upon above 75 %.

    >>> dataset_severity(0.5), dataset_severity(0.75), dataset_severity(0.76)
    (<Severity.LOW: 'low'>, <Severity.MEDIUM: 'medium'>, <Severity.HIGH: 'high'>)
    """
    if share > ACT_ABOVE:
        return Severity.HIGH
    return Severity.MEDIUM if share > DRIFTED_ABOVE else Severity.LOW


def drifted_share(severities: Iterable[Severity]) -> float:
    """The share of features that drifted; 0 of none."""
    told = [severity.is_drift for severity in severities]
    return sum(told) / len(told) if told else 0.0


BLOCKS: Final = (10, 8, 6)
"""How many blocks the shorter sample is cut into: the first of these that makes them long enough."""

MEMORIES_PER_BLOCK: Final = 3.0
"""A block must be this many times as long as a feature remembers."""

LEAST_BLOCK_S: Final = 600.0
"""The longest window of 300 s and the horizon of 60 s, with room."""

LEAST_SPAN_S: Final = BLOCKS[-1] * LEAST_BLOCK_S
MOST_REFERENCE_BLOCKS: Final = 60
LEAST_JUDGED: Final = 0.5
MISSING_MORE: Final = 0.1


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: ``distance`` is the greatest between the two distribution functions, in [0, 1].

    ``p_value`` is the feature's own, ``adjusted_p`` the one that holds for all features together and gives the
    severity; both are None for one that was not judged, and ``note`` says why. ``blocks`` are the stretches of time of
    reference and current that were compared, ``memory_s`` is how long the feature remembers. ``missing_`` are the
    shares of rows without a value.
    """

    name: str
    severity: Severity
    distance: float | None
    p_value: float | None
    adjusted_p: float | None
    blocks: tuple[int, int]
    memory_s: float | None
    reference_median: float | None
    current_median: float | None
    missing_reference: float
    missing_current: float
    note: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether there was enough to tell."""
        return self.adjusted_p is not None


class SampleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows were looked at, from when to when (RFC 3339)."""

    rows: int
    start: str
    end: str
    hours: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What a look for drift found.

    ``share`` of all ``features`` drifted. ``severity`` is the data set's, None where too few features could be judged
    to tell. ``notes`` are sentences that whoever reads the figures has to know.
    """

    reference: SampleFacts
    current: SampleFacts
    share: float
    severity: Severity | None
    features: tuple[FeatureDrift, ...]
    notes: tuple[str, ...]

    @property
    def is_drifted(self) -> bool:
        """Whether the data set as a whole has drifted."""
        return self.severity is not None and self.severity.is_drift

    @property
    def judged(self) -> int:
        """How many features could be judged."""
        return sum(feature.is_judged for feature in self.features)

    def counts(self) -> dict[str, int]:
        """Severity → features; ``none`` counts those that were not judged."""
        told = [feature.severity.value if feature.is_judged else "none" for feature in self.features]
        return {level: told.count(level) for level in ("none", *Severity)}


def look_for_drift(
    reference: DriftSample, current: DriftSample, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Drift:
    """Holds ``current`` against ``reference`` on the features and the products that both have.

    Values are compared by their rank among all rows of their own product, so that products of different scale count
    alike and one that has no rows in one of the samples counts not at all.

    Raises:
        NotEnoughData: a sample covers less than an hour, or they have no product or no feature in common.
    """
    reference, current, notes = _comparable(reference, current)
    for name, sample in (("reference", reference), ("current rows", current)):
        if sample.span_s < LEAST_SPAN_S:
            raise NotEnoughData(
                f"the {name} cover {sample.span_s / 60:.0f} minutes of market, a look for drift takes "
                f"{LEAST_SPAN_S / 60:.0f} of each: record for longer"
            )
    judged = _judged(reference, current, permutations, seed)
    severities = [feature.severity for feature in judged]
    share = drifted_share(severities)
    is_told = sum(feature.is_judged for feature in judged) >= LEAST_JUDGED * len(judged)
    return Drift(
        reference=_facts(reference),
        current=_facts(current),
        share=share,
        severity=dataset_severity(share) if is_told else None,
        features=judged,
        notes=(*notes, *_told(judged, is_told=is_told), *_daytimes(reference, current)),
    )


def judgeable(names: Iterable[str]) -> tuple[str, ...]:
    """The features that can drift: all but those that tell the clock."""
    return tuple(name for name in names if not name.startswith("seconds_to_full_"))


def _comparable(reference: DriftSample, current: DriftSample) -> tuple[DriftSample, DriftSample, list[str]]:
    """Both samples on what they have in common, and a sentence for what they have not."""
    names = tuple(name for name in judgeable(current.names) if name in reference.names)
    present = [{s.products[code] for code in np.unique(s.product).tolist()} for s in (reference, current)]
    products = tuple(sorted(present[0] & present[1]))
    if not names or not products:
        what = "feature" if products else "product"
        raise NotEnoughData(f"reference and current rows have no {what} in common: name files of one market")
    left = sorted(present[0] ^ present[1])
    notes = [f"{', '.join(left)} left out: only one of the two samples has rows of it"] if left else []
    return _on(reference, names, products), _on(current, names, products), notes


def _on(sample: DriftSample, names: tuple[str, ...], products: tuple[str, ...]) -> DriftSample:
    code = np.array([products.index(name) if name in products else -1 for name in sample.products], np.int32)
    new = code[sample.product]
    kept = DriftSample(sample.names, products, sample.time, new, sample.x)
    return kept.rows(new >= 0).columns(names)


def _judged(reference: DriftSample, current: DriftSample, permutations: int, seed: int) -> tuple[FeatureDrift, ...]:
    ranks = _ranks(reference, current)
    memories = np.maximum(_memories(reference, ranks[: len(reference)]), _memories(current, ranks[len(reference) :]))
    found = np.full((2, len(current.names)), nan)
    compared: dict[int, tuple[int, int]] = {}
    open_ = np.flatnonzero(np.isfinite(memories))
    for count in BLOCKS:
        block_s = min(reference.span_s, current.span_s) / count
        chosen = open_[(MEMORIES_PER_BLOCK * memories[open_] <= block_s) & (block_s >= LEAST_BLOCK_S)]
        if len(chosen):
            blocks = _blocks(reference, current, ranks[:, chosen], block_s)
            found[:, chosen] = distances(blocks, permutations, seed)
            sides = (int(np.count_nonzero(~blocks.is_current)), int(np.count_nonzero(blocks.is_current)))
            compared.update(dict.fromkeys(chosen.tolist(), sides))
        open_ = np.setdiff1d(open_, chosen)
    adjusted = discoveries(found[1])
    return tuple(
        _feature(reference, current, at, found[:, at], float(adjusted[at]), float(memories[at]), compared.get(at))
        for at in range(len(current.names))
    )


def _feature(
    reference: DriftSample,
    current: DriftSample,
    at: int,
    found: NDArray[np.float64],
    adjusted: float,
    memory_s: float,
    blocks: tuple[int, int] | None,
) -> FeatureDrift:
    before, now = reference.x[:, at], current.x[:, at]
    missing = [float(np.mean(~np.isfinite(values))) for values in (before, now)]
    return FeatureDrift(
        name=current.names[at],
        severity=feature_severity(adjusted),
        distance=_known(float(found[0])),
        p_value=_known(float(found[1])),
        adjusted_p=_known(adjusted),
        blocks=blocks or (0, 0),
        memory_s=_known(memory_s),
        reference_median=_median(before),
        current_median=_median(now),
        missing_reference=missing[0],
        missing_current=missing[1],
        note="" if isfinite(adjusted) else _why_not(memory_s),
    )


def _why_not(memory_s: float) -> str:
    if not isfinite(memory_s):
        return "without values, or of one value throughout"
    return f"remembers for {memory_s / 60:.0f} minutes, too long for samples as short as these"


def _ranks(reference: DriftSample, current: DriftSample) -> NDArray[np.float64]:
    """(rows of both, features) each value's rank among its product's finite ones, in (0, 1); ties share one; or NaN."""
    x = np.concatenate([reference.x, current.x])
    product = np.concatenate([reference.product, current.product])
    ranks = np.full(x.shape, nan)
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        for column in range(x.shape[1]):
            told = rows[np.isfinite(x[rows, column])]
            ranks[told, column] = _midranks(x[told, column])
    return ranks


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto) / (2.0 * max(1, len(values))))


def _memories(sample: DriftSample, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """(features,) seconds that each remembers, the longest of its products; NaN for one that does not vary."""
    seconds = np.full((len(sample.products), ranks.shape[1]), nan)
    for code in range(len(sample.products)):
        rows = sample.product == code
        elapsed = sample.elapsed()[rows]
        step_s = (elapsed[-1] - elapsed[0]) / max(1, len(elapsed) - 1)
        for column in range(ranks.shape[1]):
            values = ranks[rows, column]
            told = values[np.isfinite(values)]
            if len(told) and np.ptp(told) > 0.0:
                seconds[code, column] = memory(told) * step_s
    known = np.isfinite(seconds)
    return np.where(known.any(axis=0), np.where(known, seconds, -1.0).max(axis=0), nan)


def _blocks(reference: DriftSample, current: DriftSample, ranks: NDArray[np.float64], block_s: float) -> BlockShares:
    """The newest whole blocks of the reference, and those of the current sample."""
    levels = np.arange(1, GRID + 1) / (GRID + 1)
    shares, sides = list[NDArray[np.float64]](), list[bool]()
    parts = ((reference, ranks[: len(reference)], False), (current, ranks[len(reference) :], True))
    for sample, own, is_current in parts:
        before_end = sample.span_s - sample.elapsed()
        count = min(int(sample.span_s / block_s + 1e-9), MOST_REFERENCE_BLOCKS)
        place = (before_end / block_s).astype(np.int64)
        for number in range(count):
            shares.append(_shares_below(own[place == number], levels))
            sides.append(is_current)
    return BlockShares(np.stack(shares), np.array(sides))


def _shares_below(ranks: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(features, levels) the share of a block's known ranks that lie below each level; NaN without any."""
    told = np.count_nonzero(np.isfinite(ranks), axis=0)[:, None]
    below = np.count_nonzero(ranks[:, :, None] < levels, axis=0)  # NaN is below nothing
    share = np.full(below.shape, nan)
    np.divide(below, told, out=share, where=told > 0)
    return share


def _facts(sample: DriftSample) -> SampleFacts:
    return SampleFacts(
        rows=len(sample),
        start=format_time(int(sample.time[0])),
        end=format_time(int(sample.time[-1])),
        hours=round(sample.span_s / 3600.0, 3),
    )


def _told(features: Sequence[FeatureDrift], *, is_told: bool) -> list[str]:
    unjudged = sum(not feature.is_judged for feature in features)
    sentences = []
    if unjudged:
        sentences.append(
            f"{unjudged} of {len(features)} features were not judged: too few stretches of time that know nothing of "
            "each other"
        )
    if not is_told:
        sentences.append("whether the data set drifted cannot be told: under half of its features could be judged")
    holes = [f.name for f in features if f.missing_current > f.missing_reference + MISSING_MORE]
    if holes:
        sentences.append(f"more values are missing than before, look at the feed: {', '.join(holes[:5])}")
    return sentences


def _daytimes(reference: DriftSample, current: DriftSample) -> list[str]:
    """Markets have their hours: samples that see different ones differ for that alone."""
    if min(reference.span_s, current.span_s) >= 86_400.0:
        return []
    return ["a sample is shorter than a day: what differs may be the hour of the day, and no drift"]


def _median(values: NDArray[np.float64]) -> float | None:
    told = values[np.isfinite(values)]
    return float(np.median(told)) if len(told) else None


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


class ReportType(StrEnum):
    """What is held against what: the early rows against the late ones, or those trained on against those tested on."""

    DATA_DRIFT = "data_drift"
    TRAIN_TEST = "train_test"


SPLIT_RATIOS: Final = {ReportType.DATA_DRIFT: 0.5, ReportType.TRAIN_TEST: 0.85}
"""The share of rows that are reference unless somebody says otherwise; train_test as training divides them."""


def drift_samples(dataset: Dataset, ratio: float, embargo_s: int) -> tuple[DriftSample, DriftSample]:
    """The first ``ratio`` of the rows, and the others less those whose windows reach back over the cut.

    Raises:
        UsageError: a ratio that leaves one of them nothing.
        NotEnoughData: no row lies beyond the embargo.
    """
    if not 0.0 < ratio < 1.0:
        raise UsageError(f"--split-ratio lies between 0 and 1, was {ratio:g}")
    cut = min(max(1, round(ratio * len(dataset))), len(dataset) - 1)
    names = judgeable(dataset.names)
    late = cut + np.flatnonzero(dataset.time[cut:] > dataset.time[cut - 1] + embargo_s * SECOND_NS)
    if len(late) == 0:
        raise NotEnoughData(f"no row lies {embargo_s} s beyond the cut: take a smaller --split-ratio, or record longer")
    return DriftSample.of(dataset, np.arange(cut), names), DriftSample.of(dataset, late, names)


def drift_result(drift: Drift, time_ns: int) -> DriftResult:
    """The result of a drift check at ``time_ns`` (UTC); severity ``none`` means that there was no test."""
    counts = drift.counts()
    levels: tuple[ResultSeverity, ...] = get_args(ResultSeverity)
    severity: ResultSeverity = "none" if drift.severity is None else levels[levels.index(drift.severity.value)]
    return DriftResult(
        time=time_ns,
        share=drift.share,
        severity=severity,
        features={level: counts[level] for level in levels},
        rows=drift.current.rows,
    )
