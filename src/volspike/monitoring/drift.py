"""Drift check: whether newer rows are distributed as older ones, feature by feature, and how severely they differ.

The test takes the dependence of consecutive rows into account; see ``block_permutation``.
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
    adjust_p_values,
    autocorrelation_time,
    permutation_test,
)
from volspike.monitoring.results import DriftResult, ResultSeverity
from volspike.progress import OnStep, Step

LOW_ABOVE: Final = 0.05
HIGH_UP_TO: Final = 0.01
DRIFTED_ABOVE: Final = 0.50
ACT_ABOVE: Final = 0.75


class DriftSeverity(StrEnum):
    """DriftSeverity of drift: of a feature by its p-value, of a data set by the share of its features that drifted."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def is_drift(self) -> bool:
        """Whether it counts as drift."""
        return self is not DriftSeverity.LOW


def feature_severity(p_value: float) -> DriftSeverity:
    """Low above 0.05, high up to 0.01; NaN, a feature without a test, is low.

    >>> feature_severity(0.05), feature_severity(0.01)
    (<DriftSeverity.MEDIUM: 'medium'>, <DriftSeverity.HIGH: 'high'>)
    """
    if p_value <= HIGH_UP_TO:
        return DriftSeverity.HIGH
    return DriftSeverity.MEDIUM if p_value <= LOW_ABOVE else DriftSeverity.LOW


def dataset_severity(share: float) -> DriftSeverity:
    """By the share of features that drifted: medium above one half, high above 75 %.

    >>> dataset_severity(0.5), dataset_severity(0.75), dataset_severity(0.76)
    (<DriftSeverity.LOW: 'low'>, <DriftSeverity.MEDIUM: 'medium'>, <DriftSeverity.HIGH: 'high'>)
    """
    if share > ACT_ABOVE:
        return DriftSeverity.HIGH
    return DriftSeverity.MEDIUM if share > DRIFTED_ABOVE else DriftSeverity.LOW


def drifted_share(severities: Iterable[DriftSeverity]) -> float:
    """The share of features that drifted; 0 without features."""
    drifted = [severity.is_drift for severity in severities]
    return sum(drifted) / len(drifted) if drifted else 0.0


BLOCKS: Final = (10, 8, 6)
"""Blocks of the shorter sample: the first of these numbers for which blocks are long enough."""

MEMORIES_PER_BLOCK: Final = 3.0
"""The minimum length of a block, in autocorrelation times of a feature."""

LEAST_BLOCK_S: Final = 600.0
"""More than the longest window of 300 s and the horizon of 60 s."""

LEAST_SPAN_S: Final = BLOCKS[-1] * LEAST_BLOCK_S
MOST_REFERENCE_BLOCKS: Final = 60
LEAST_TESTED_SHARE: Final = 0.5
MISSING_INCREASE: Final = 0.1


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """The drift of one feature.

    Attributes:
        distance: maximum distance between the two distribution functions, in [0, 1].
        p_value: p-value of the distance; None without a test, for the reason in ``note``.
        adjusted_p: p-value adjusted for the number of features, which determines the severity.
        blocks: number of compared blocks of the reference and the current sample.
        memory_s: autocorrelation time.
        missing_reference, missing_current: shares of rows without a value.
    """

    name: str
    severity: DriftSeverity
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
    def is_tested(self) -> bool:
        """Whether there was enough data for a test."""
        return self.adjusted_p is not None


class SampleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Number and time range (RFC 3339; empty without rows) of a sample's rows."""

    rows: int
    start: str
    end: str
    hours: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a drift check: ``share`` of all ``features`` drifted.

    ``severity`` is the data set's, None if too few features have a test; ``verdict`` is the result as a phrase.
    ``notes`` are sentences that qualify it.
    """

    reference: SampleFacts
    current: SampleFacts
    share: float
    severity: DriftSeverity | None
    features: tuple[FeatureDrift, ...]
    notes: tuple[str, ...]
    verdict: str = ""

    @property
    def untested(self) -> tuple[str, ...]:
        """The features without a test."""
        return tuple(feature.name for feature in self.features if not feature.is_tested)

    @property
    def is_drifted(self) -> bool:
        """Whether the data set has drifted."""
        return self.severity is not None and self.severity.is_drift

    @property
    def tested(self) -> int:
        """The number of features with a test."""
        return sum(feature.is_tested for feature in self.features)

    def counts(self) -> dict[str, int]:
        """Features by severity; ``none`` counts those without a test."""
        levels = [feature.severity.value if feature.is_tested else "none" for feature in self.features]
        return {level: levels.count(level) for level in ("none", *DriftSeverity)}


def check_drift(
    reference: DriftSample,
    current: DriftSample,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    on_step: OnStep = lambda _: None,
) -> Drift:
    """Compare ``current`` with ``reference`` on the features and products that both have.

    Values are compared by their rank among all rows of their product, so that products of different scale have equal
    weight. A feature without values, or whose autocorrelation time is too long for the samples, has no test.

    Raises:
        NotEnoughData: a sample covers less than an hour, or they have no product or no feature in common.
    """
    reference, current, notes = _comparable(reference, current)
    if shortage := shortage_of(reference, current):
        raise NotEnoughData(f"drift: {shortage}; record more or use another --split-ratio")
    features = _test_features(reference, current, permutations, seed, on_step)
    share = drifted_share(feature.severity for feature in features)
    is_known = sum(feature.is_tested for feature in features) >= LEAST_TESTED_SHARE * len(features)
    severity = dataset_severity(share) if is_known else None
    return Drift(
        reference=_facts(reference),
        current=_facts(current),
        share=share,
        severity=severity,
        features=features,
        verdict=_verdict(severity, features, share),
        notes=(*notes, *_coverage_notes(features, is_known=is_known), *_daytime_notes(reference, current)),
    )


def shortage_of(reference: DriftSample, current: DriftSample) -> str:
    """The sample that is too short to be tested, and the time that is needed; "" if none is."""
    for name, sample in (("reference rows", reference), ("current rows", current)):
        if sample.span_s < LEAST_SPAN_S:
            needed, covered = LEAST_SPAN_S / 60, sample.span_s / 60
            return f"{needed:.0f} min of data needed on each side, the {name} cover {covered:.0f} min"
    return ""


NOT_ENOUGH_DATA: Final = "not enough data"


def untested_drift(reference: DriftSample, current: DriftSample, remedy: str) -> Drift:
    """The result for samples of which one is too short: no feature has a test. ``remedy`` ends the note on it."""
    note = f"{shortage_of(reference, current)}; {remedy}"
    features = tuple(
        FeatureDrift(
            name=name,
            severity=DriftSeverity.LOW,
            distance=None,
            p_value=None,
            adjusted_p=None,
            blocks=(0, 0),
            memory_s=None,
            reference_median=_median(reference.x[:, at]),
            current_median=_median(current.x[:, at]),
            missing_reference=_missing_share(reference.x[:, at]),
            missing_current=_missing_share(current.x[:, at]),
            note=NOT_ENOUGH_DATA,
        )
        for at, name in enumerate(current.names)
    )
    return Drift(
        reference=_facts(reference),
        current=_facts(current),
        share=0.0,
        severity=None,
        features=features,
        notes=(note,),
        verdict=NOT_ENOUGH_DATA,
    )


def _verdict(severity: DriftSeverity | None, features: Sequence[FeatureDrift], share: float) -> str:
    tested = sum(feature.is_tested for feature in features)
    counts = f"{share:.0%} of {len(features)} features drifted, {tested} could be tested"
    return f"{'unknown' if severity is None else severity.value} ({counts})"


def testable_features(names: Iterable[str]) -> tuple[str, ...]:
    """The features that can drift: all except those that depend only on the clock."""
    return tuple(name for name in names if not name.startswith("seconds_to_full_"))


def _comparable(reference: DriftSample, current: DriftSample) -> tuple[DriftSample, DriftSample, list[str]]:
    """Both samples with their common features and products, and a note on excluded products."""
    names = tuple(name for name in testable_features(current.names) if name in reference.names)
    present = [{s.products[code] for code in np.unique(s.product).tolist()} for s in (reference, current)]
    products = tuple(sorted(present[0] & present[1]))
    if not names or not products:
        what = "feature" if products else "product"
        raise NotEnoughData(
            f"drift: reference and current rows have no {what} in common; choose files of the same market"
        )
    excluded = sorted(present[0] ^ present[1])
    notes = [f"{', '.join(excluded)} excluded: only one of the two samples has rows"] if excluded else []
    return _select(reference, names, products), _select(current, names, products), notes


def _select(sample: DriftSample, names: tuple[str, ...], products: tuple[str, ...]) -> DriftSample:
    code = np.array([products.index(name) if name in products else -1 for name in sample.products], np.int32)
    new = code[sample.product]
    kept = DriftSample(sample.names, products, sample.time, new, sample.x)
    return kept.rows(new >= 0).columns(names)


def _test_features(
    reference: DriftSample, current: DriftSample, permutations: int, seed: int, on_step: OnStep
) -> tuple[FeatureDrift, ...]:
    on_step(Step("measuring the memory of each feature", 0.1))
    ranks = _ranks(reference, current)
    memories = np.maximum(_memories(reference, ranks[: len(reference)]), _memories(current, ranks[len(reference) :]))
    found = np.full((2, len(current.names)), nan)
    compared: dict[int, tuple[int, int]] = {}
    untested = np.flatnonzero(np.isfinite(memories))
    for number, count in enumerate(BLOCKS):
        on_step(Step(f"permuting {count} blocks", 0.4 + 0.5 * number / len(BLOCKS)))
        block_s = min(reference.span_s, current.span_s) / count
        chosen = untested[(MEMORIES_PER_BLOCK * memories[untested] <= block_s) & (block_s >= LEAST_BLOCK_S)]
        if len(chosen):
            blocks = _blocks(reference, current, ranks[:, chosen], block_s)
            found[:, chosen] = permutation_test(blocks, permutations, seed)
            sides = (int(np.count_nonzero(~blocks.is_current)), int(np.count_nonzero(blocks.is_current)))
            compared.update(dict.fromkeys(chosen.tolist(), sides))
        untested = np.setdiff1d(untested, chosen)
    adjusted = adjust_p_values(found[1])
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
    missing = [_missing_share(values) for values in (before, now)]
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
        note="" if isfinite(adjusted) else _untested_reason(memory_s),
    )


def _untested_reason(memory_s: float) -> str:
    if not isfinite(memory_s):
        return "no values, or a constant"
    return f"autocorrelation time of {memory_s / 60:.0f} min is too long for these samples"


def _ranks(reference: DriftSample, current: DriftSample) -> NDArray[np.float64]:
    """(rows of both, features) each value's midrank among its product's finite values, in (0, 1); NaN if unknown."""
    x = np.concatenate([reference.x, current.x])
    product = np.concatenate([reference.product, current.product])
    ranks = np.full(x.shape, nan)
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        for column in range(x.shape[1]):
            known = rows[np.isfinite(x[rows, column])]
            ranks[known, column] = _midranks(x[known, column])
    return ranks


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto) / (2.0 * max(1, len(values))))


def _memories(sample: DriftSample, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """(features,) autocorrelation times in seconds, the longest of the products; NaN for a constant."""
    seconds = np.full((len(sample.products), ranks.shape[1]), nan)
    for code in range(len(sample.products)):
        rows = sample.product == code
        elapsed = sample.elapsed()[rows]
        step_s = (elapsed[-1] - elapsed[0]) / max(1, len(elapsed) - 1)
        for column in range(ranks.shape[1]):
            values = ranks[rows, column]
            finite = values[np.isfinite(values)]
            if len(finite) and np.ptp(finite) > 0.0:
                seconds[code, column] = autocorrelation_time(finite) * step_s
    known = np.isfinite(seconds)
    return np.where(known.any(axis=0), np.where(known, seconds, -1.0).max(axis=0), nan)


def _blocks(reference: DriftSample, current: DriftSample, ranks: NDArray[np.float64], block_s: float) -> BlockShares:
    """The newest complete blocks of the reference and of the current sample."""
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
    """(features, levels) the share of a block's known ranks below each level; NaN without ranks."""
    known = np.count_nonzero(np.isfinite(ranks), axis=0)[:, None]
    below = np.count_nonzero(ranks[:, :, None] < levels, axis=0)  # NaN is below nothing
    share = np.full(below.shape, nan)
    np.divide(below, known, out=share, where=known > 0)
    return share


def _facts(sample: DriftSample) -> SampleFacts:
    return SampleFacts(
        rows=len(sample),
        start=format_time(int(sample.time[0])) if len(sample) else "",
        end=format_time(int(sample.time[-1])) if len(sample) else "",
        hours=round(sample.span_s / 3600.0, 3),
    )


def _coverage_notes(features: Sequence[FeatureDrift], *, is_known: bool) -> list[str]:
    untested = sum(not feature.is_tested for feature in features)
    sentences = []
    if untested:
        sentences.append(
            f"{untested} of {len(features)} features have no test: the samples are too short for independent blocks"
        )
    if not is_known:
        sentences.append("the drift of the data set is unknown: fewer than half of its features have a test")
    holes = [f.name for f in features if f.missing_current > f.missing_reference + MISSING_INCREASE]
    if holes:
        sentences.append(f"more values are missing than before, check the feed: {', '.join(holes[:5])}")
    return sentences


def _daytime_notes(reference: DriftSample, current: DriftSample) -> list[str]:
    """Markets depend on the hour of the day, so that short samples differ without drift."""
    if min(reference.span_s, current.span_s) >= 86_400.0:
        return []
    return ["a sample is shorter than a day: differences may be due to the hour of the day"]


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _missing_share(values: NDArray[np.float64]) -> float:
    return float(np.mean(~np.isfinite(values))) if len(values) else 0.0


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


class ReportType(StrEnum):
    """The compared rows: early with late ones, or training with test rows."""

    DATA_DRIFT = "data_drift"
    TRAIN_TEST = "train_test"


SPLIT_RATIOS: Final = {ReportType.DATA_DRIFT: 0.5, ReportType.TRAIN_TEST: 0.85}
"""The default share of reference rows; for train_test as in training."""


def drift_samples(dataset: Dataset, ratio: float, embargo_s: int) -> tuple[DriftSample, DriftSample]:
    """The first ``ratio`` of the rows as reference, and the others after the embargo, if any, as current sample.

    Raises:
        UsageError: a ratio that is not between 0 and 1.
    """
    if not 0.0 < ratio < 1.0:
        raise UsageError(f"--split-ratio must be between 0 and 1, got {ratio:g}")
    names = testable_features(dataset.names)
    early, late = _divide(dataset, ratio, embargo_s)
    return DriftSample.of(dataset, early, names), DriftSample.of(dataset, late, names)


def _divide(dataset: Dataset, ratio: float, embargo_s: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cut = min(max(1, round(ratio * len(dataset))), max(1, len(dataset) - 1))
    late = cut + np.flatnonzero(dataset.time[cut:] > dataset.time[cut - 1] + embargo_s * SECOND_NS)
    return np.arange(cut), late


def sufficient_ratio(dataset: Dataset, ratio: float, embargo_s: int) -> float | None:
    """The ratio nearest to ``ratio``, in steps of 0.05, whose samples are both long enough; None if there is none."""
    for candidate in sorted((step / 20 for step in range(1, 20)), key=lambda other: abs(other - ratio)):
        samples = (DriftSample.of(dataset, rows, ()) for rows in _divide(dataset, candidate, embargo_s))
        if not shortage_of(*samples):
            return candidate
    return None


def split_remedy(dataset: Dataset, ratio: float, embargo_s: int) -> str:
    """The remedy if a sample of this split is too short, for a message."""
    sufficient = sufficient_ratio(dataset, ratio, embargo_s)
    if sufficient is None:
        return f"record more, as no --split-ratio leaves {LEAST_SPAN_S / 60:.0f} min on both sides"
    return f"use --split-ratio {sufficient:g} or record more"


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
