"""Feature files built from tapes, and labels added to feature files, both in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets.bulk import BulkEngine, ReplayOptions, TapePrefetcher, run_units
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import (
    LABEL_COLUMNS,
    LABEL_FIELDS,
    NOTHING_SUPPLIED,
    PARQUET,
    ROW_GROUP,
    FeatureFacts,
    FeatureFileWriter,
    RecordingGap,
    SuppliedFacts,
    facts_of,
    open_feature_file,
    row_group,
    with_facts,
    write_atomically,
)
from volspike.datasets.splits import DEFAULT_FRACTIONS
from volspike.errors import DataError, NotEnoughData, UnreadableFile, UsageError
from volspike.features import DroppedEvents, Every, FeatureSet, profile_of
from volspike.labels import (
    DEFAULT_PERCENTILE,
    HORIZON_S,
    LONGEST_HORIZON_S,
    MINUTE_S,
    SESSION_GAP_S,
    TRAILING_HOUR,
    LevelThreshold,
    SecondGrid,
    SpikeDefinition,
    SpikeKind,
    jump_threshold,
    spike_threshold,
    spikes,
)
from volspike.market import SECOND_NS, Gap, Kind, Profile, Ticks, format_time
from volspike.progress import OnStep, Step
from volspike.tape import TapeReport, read_ticks, tapes_of

LOOK_AHEAD_TICKS = 200_000
"""Ticks from which the profile of a tape is detected."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Rows, metadata, dropped events and the tape report of a replay."""

    rows: int
    facts: FeatureFacts
    dropped: DroppedEvents
    report: TapeReport


def build_features(
    sources: Sequence[str | Path],
    out: Path,
    feature_set: FeatureSet,
    every: Every = Every.TICK,
    profile: Profile | None = None,
    gaps: Sequence[Gap] = (),
    on_progress: Callable[[TapeReport], None] | None = None,
    engine: BulkEngine | None = None,
    timezone: str | None = None,
    simulated: bool | None = None,
) -> BuildResult:
    """Replays tapes into the feature file ``out``. Without ``profile``, the first 200 000 ticks determine it.

    Times without a zone are local times of ``timezone``, or UTC. ``gaps`` come from the gap ledger of the recording;
    rows whose windows cover one have ``is_whole`` false. With an ``engine``, workers compute the rows; rows, row order
    and metadata are bit-identical to a single pass.

    Raises:
        UsageError: a tape does not exist, or ``out`` cannot be written.
        UnreadableFile: the tapes contain no tick, or their ticks give no feature row.
        WorkerLost: a process of the engine ended.
        DataError: a later part of a tape contains kinds of ticks that do not fit the detected profile.
    """
    report = TapeReport()
    # workers know neither time zone nor origin
    reads_ahead = engine is not None and timezone is None and simulated is None
    prefetcher = TapePrefetcher.of(engine, tapes_of(sources), report) if engine is not None and reads_ahead else None
    stream = read_ticks(sources, report=report, timezone=timezone, simulated=simulated, prefetcher=prefetcher)
    settled, stream = (profile, stream) if profile is not None else _detect_profile(stream)
    options = ReplayOptions(feature_set, settled, every)
    with write_atomically(out) as part, FeatureFileWriter(part, feature_set) as writer:
        written = (
            _in_one_pass(options, stream, gaps, writer)
            if engine is None
            else run_units(engine, options, stream, gaps, writer)
        )
        dropped = DroppedEvents(0, 0, 0, 0)
        for dropped in written:  # noqa: B007  the last value is the total
            if on_progress is not None:
                on_progress(report)
        if writer.written == 0:
            raise UnreadableFile(", ".join(map(str, sources)), "its ticks give no feature row; check --profile")
        if profile is None:
            _check_profile(settled, report)
        facts = writer.facts = _facts(feature_set, every, settled, report, gaps)
    return BuildResult(writer.written, facts, dropped, report)


def _in_one_pass(
    options: ReplayOptions, stream: Iterator[Ticks], gaps: Sequence[Gap], writer: FeatureFileWriter
) -> Iterator[DroppedEvents]:
    """Writes the rows of the stream; yields the counts of dropped events after each batch and at the end.

    Reading, features and writing run in one thread each; kernel and Parquet release the GIL.
    """
    engine = options.create_engine()
    with ThreadPoolExecutor(1) as writing:
        written = Future[None]()
        written.set_result(None)
        for rows in engine.run_all(read_ahead(stream), gaps):
            written.result()
            written = writing.submit(writer.write, rows)
            yield engine.dropped()
        written.result()
    yield engine.dropped()


def read_ahead(stream: Iterator[Ticks], most: int = 2) -> Iterator[Ticks]:
    """The chunks of ``stream``, read in a thread at most ``most`` chunks ahead of the consumer."""
    with ThreadPoolExecutor(1) as reading:
        ready = deque(reading.submit(next, stream, None) for _ in range(most))
        while (ticks := ready.popleft().result()) is not None:
            ready.append(reading.submit(next, stream, None))
            yield ticks


def _facts(
    feature_set: FeatureSet, every: Every, profile: Profile, report: TapeReport, gaps: Sequence[Gap]
) -> FeatureFacts:
    return FeatureFacts(
        digest=feature_set.digest,
        windows=feature_set.windows,
        every=every,
        profile=profile,
        scope=feature_set.scope,
        leader=feature_set.leader,
        extras=tuple(extra.facts for extra in feature_set.extras),
        simulated=report.simulated,
        losses=tuple(RecordingGap(gap.start, gap.end, gap.products) for gap in gaps),
    )


def _detect_profile(stream: Iterator[Ticks]) -> tuple[Profile, Iterator[Ticks]]:
    """The profile of the first ticks, and the complete stream."""
    seen: list[Ticks] = []
    kinds: set[Kind] = set()
    count = 0
    for ticks in stream:
        seen.append(ticks)
        count += len(ticks)
        kinds.update(Kind(int(kind)) for kind in {ticks.kind.min(), ticks.kind.max()})
        if count >= LOOK_AHEAD_TICKS or len(kinds) == len(Kind):
            break
    return profile_of(kinds), chain(seen, stream)


def _check_profile(settled: Profile, report: TapeReport) -> None:
    complete = profile_of(report.kinds)
    if complete is not settled:
        raise DataError(
            f"the first ticks have profile {settled}, the complete tape has {complete}: features would be ambiguous; "
            f"choose the profile with --profile {complete}"
        )


LABEL_SHARE: Final = 0.3
"""Share of the time of ``label_file`` that passes before its first row is written, for the progress."""

PERCENTILE: Final = SpikeDefinition(SpikeKind.PERCENTILE, DEFAULT_PERCENTILE)
"""The spike definition of the earlier system, and the default of the commands that it had."""


@dataclass(frozen=True, slots=True)
class LabelResult:
    """Counts of a labelled file: of the ``labelled`` rows future volatility and τ are known, ``spikes`` are spikes."""

    rows: int
    labelled: int
    spikes: int
    facts: FeatureFacts


def label_file(
    features: Path,
    out: Path,
    spike: SpikeDefinition = PERCENTILE,
    gap_s: float = SESSION_GAP_S,
    horizon: int = HORIZON_S,
    on_step: OnStep = lambda _: None,
    supplied: SuppliedFacts = NOTHING_SUPPLIED,
) -> LabelResult:
    """Writes ``features`` to ``out`` with ``LABEL_FIELDS``; both may be the same path.

    A ``percentile`` is that of the first 70 % of labelled rows, so later rows do not change it. Training computes it
    from its own training rows; the columns ``tau`` and ``volatility_spike`` are then for inspection. ``tau`` is null
    where it is unknown, ``future_volatility`` where the future is unknown, and ``volatility_spike`` where either is.
    ``supplied`` replaces metadata that is missing.

    Raises:
        UsageError: ``gap_s`` or ``horizon`` is out of range.
        UnreadableFile: ``features`` is not a feature file, or lacks the column that τ is derived from.
        NotEnoughData: no row has a known future, or prices did not move.
    """
    if not 0.0 < gap_s < float("inf") or not MINUTE_S <= horizon <= LONGEST_HORIZON_S:
        raise UsageError(
            f"the session gap must be above 0 and the horizon {MINUTE_S} to {LONGEST_HORIZON_S} s; "
            f"were {gap_s} and {horizon}"
        )
    with open_feature_file(features) as file:
        facts = facts_of(features, file, supplied)
        if file.metadata.num_rows == 0:
            raise NotEnoughData(f"{features} has no rows: replay a longer tape")
        if spike.kind is SpikeKind.JUMP and TRAILING_HOUR not in file.schema_arrow.names:
            raise UnreadableFile(
                features,
                f"spike definition {spike} needs the column {TRAILING_HOUR}; replay with --feature-set full, "
                "or choose level, fixed or percentile",
            )
        on_step(Step("reading prices", 0.0))
        futures = _future_volatilities(file, facts, gap_s, horizon)
        facts = _label_facts(facts, spike, futures, horizon)
        with write_atomically(out) as part:
            labelled, spike_count = _write(file, part, facts, futures, spike, on_step)
    return LabelResult(file.metadata.num_rows, labelled, spike_count, facts)


def _label_facts(
    facts: FeatureFacts, spike: SpikeDefinition, futures: dict[str, SecondVolatility], horizon: int
) -> FeatureFacts:
    """The facts of the labelled file. A percentile is computed, even if only to learn whether any future is known."""
    tau: float | None = None
    tau_from: str | None = spike.describe()
    if spike.kind is SpikeKind.PERCENTILE:
        tau, tau_from = _threshold(futures, spike.value, horizon)
    elif spike.kind is SpikeKind.FIXED:
        tau, tau_from = spike.value, "given"
    is_percentile = spike.kind is SpikeKind.PERCENTILE
    return msgspec.structs.replace(
        facts,
        tau=tau,
        label_percentile=spike.value if is_percentile else None,
        tau_from=tau_from,
        spike=str(spike),
        horizon_s=horizon,
    )


@dataclass(frozen=True, slots=True, eq=False)
class SecondVolatility:
    """The seconds of one product that have rows: (n,) second, future volatility and number of rows."""

    second: NDArray[np.int64]
    volatility: NDArray[np.float64]
    rows: NDArray[np.int64]


def row_second(timestamp: NDArray[np.int64], every: Every) -> NDArray[np.int64]:
    """The second of a row: that of its tick, or the second that the row completes."""
    return timestamp // SECOND_NS - (1 if every is Every.SECOND else 0)


def _batches(file: pq.ParquetFile) -> Iterator[pa.Table]:
    columns = [name for name in ("timestamp", "product_id", "session_id", "price") if name in file.schema_arrow.names]
    for batch in file.iter_batches(ROW_GROUP, columns=columns):
        yield pa.Table.from_batches([batch])


def _products(table: pa.Table) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """The products of a table, each with its row indices."""
    encoded = table["product_id"].combine_chunks()
    encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
    codes = np.asarray(encoded.indices)
    for code in np.unique(codes):
        yield encoded.dictionary[int(code)].as_py(), np.flatnonzero(codes == code)


def _future_volatilities(
    file: pq.ParquetFile, facts: FeatureFacts, gap_s: float, horizon: int
) -> dict[str, SecondVolatility]:
    """The future volatility of each second, by product."""
    grids: dict[str, SecondGrid] = {}
    for table in _batches(file):
        time, price = numbers(table, "timestamp").astype(np.int64), numbers(table, "price")
        session = numbers(table, "session_id") if "session_id" in table.column_names else np.zeros(len(time), np.int64)
        for product, rows in _products(table):
            if product not in grids:
                losses = [(loss.start, loss.end) for loss in facts.losses if product in loss.products]
                is_per_second = facts.every is Every.SECOND
                grids[product] = SecondGrid(int(gap_s * SECOND_NS), is_per_second=is_per_second, gaps=losses)
            grid = grids[product]
            if np.any(np.diff(time[rows]) < 0):
                raise DataError(f"rows of {product} are not in time order; `volspike consolidate` sorts them")
            grid.add(time[rows], row_second(time[rows], facts.every), session[rows], price[rows])
    return {product: _join_sessions(grid, horizon) for product, grid in grids.items()}


def _join_sessions(grid: SecondGrid, horizon: int) -> SecondVolatility:
    sessions = list(grid.labels(horizon))
    second, volatility, rows = (np.concatenate(part) for part in zip(*sessions, strict=True))
    return SecondVolatility(second, volatility, rows)


def _threshold(futures: dict[str, SecondVolatility], percentile: float, horizon: int) -> tuple[float, str]:
    """τ over the first 70 % of the labelled rows of all products, and a description of its source."""
    second = np.concatenate([future.second for future in futures.values()])
    volatility = np.concatenate([future.volatility for future in futures.values()])
    rows = np.where(np.isfinite(volatility), np.concatenate([future.rows for future in futures.values()]), 0)
    order = np.argsort(second, kind="stable")
    reached = np.cumsum(rows[order])
    last = np.searchsorted(reached, DEFAULT_FRACTIONS[0] * reached[-1]) if len(reached) else 0
    cut = int(second[order][min(last, len(order) - 1)])
    training = second + horizon < cut
    tau = spike_threshold(np.where(training, volatility, np.nan), percentile, rows)
    share = f"{DEFAULT_FRACTIONS[0]:.0%}"
    return tau, f"percentile {percentile:g} of the first {share} of labelled rows, until {format_time(cut * SECOND_NS)}"


def _write(
    file: pq.ParquetFile,
    part: Path,
    facts: FeatureFacts,
    futures: dict[str, SecondVolatility],
    spike: SpikeDefinition,
    on_step: OnStep,
) -> tuple[int, int]:
    """Writes all rows with their labels; returns the number of labelled rows and of spikes."""
    kept = [field for field in file.schema_arrow.remove_metadata() if field.name not in LABEL_COLUMNS]
    schema = with_facts(pa.schema([*kept, *LABEL_FIELDS]), facts)
    levels = _levels(futures, spike, facts.horizon_s)
    labelled = spike_count = written = 0
    with pq.ParquetWriter(part, schema, **PARQUET) as writer:
        for batch in file.iter_batches(row_group(schema), columns=[field.name for field in kept]):
            table = pa.Table.from_batches([batch])
            volatility = _by_second(table, facts, futures, {name: each.volatility for name, each in futures.items()})
            if spike.kind is SpikeKind.JUMP:
                tau = jump_threshold(numbers(table, TRAILING_HOUR), spike.value)
            elif levels:
                tau = _by_second(table, facts, futures, levels)
            else:
                tau = np.full(len(volatility), facts.tau)
            spiking = spikes(volatility, tau)
            unknown = np.isnan(volatility) | np.isnan(tau)
            labels = [_nullable(volatility, np.isnan(volatility)), _nullable(spiking, unknown)]
            labels.append(_nullable(tau, np.isnan(tau)))
            writer.write_table(pa.Table.from_arrays([*table.columns, *labels], schema=schema))
            written += len(table)
            on_step(Step(f"{written:,} rows", LABEL_SHARE + (1.0 - LABEL_SHARE) * written / file.metadata.num_rows))
            labelled += int(np.count_nonzero(~unknown))
            spike_count += int(spiking.sum())
    return labelled, spike_count


def _levels(
    futures: dict[str, SecondVolatility], spike: SpikeDefinition, horizon: int
) -> dict[str, NDArray[np.float64]]:
    """τ of each product's seconds if it is a trailing percentile, otherwise {}."""
    if spike.kind is not SpikeKind.LEVEL:
        return {}
    return {
        product: LevelThreshold(spike.value, horizon).taus(future.second, future.volatility)
        for product, future in futures.items()
    }


def _nullable(values: NDArray[Any], unknown: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=unknown)


def _by_second(
    table: pa.Table,
    facts: FeatureFacts,
    futures: dict[str, SecondVolatility],
    values: dict[str, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """The value of each row's second; ``values`` are those of the product's seconds in ``futures``."""
    second = row_second(numbers(table, "timestamp").astype(np.int64), facts.every)
    found = np.empty(len(second))
    for product, rows in _products(table):
        found[rows] = values[product][np.searchsorted(futures[product].second, second[rows])]
    return found
