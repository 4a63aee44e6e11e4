"""Feature files built from tapes, and labels added to feature files, both in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
    FeatureTable,
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
from volspike.tape import TableTape, TapeReport, read_ticks, tapes_of

LOOK_AHEAD_TICKS = 200_000
"""Ticks from which the profile of a tape is detected."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Rows, metadata, dropped events and the tape report of a replay."""

    rows: int
    facts: FeatureFacts
    dropped: DroppedEvents
    report: TapeReport

    def describe_dropped(self) -> str | None:
        """The numbers of dropped ticks; None if every tick counts.

        Raises:
            DataError: most of the ticks are late or invalid.
        """
        counts = {name: getattr(self.dropped, name) for name in ("late", "duplicates", "unplaced", "invalid")}
        if not any(counts.values()):
            return None
        text = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        if 2 * (self.dropped.late + self.dropped.invalid) > self.report.ticks:
            raise DataError(
                f"most of the {self.report.ticks:,} ticks were dropped ({text}), so there is no result; late ticks "
                "have a time before that of an earlier one: sort them by time, or name the zone of their times with "
                "--timezone"
            )
        return f"dropped ticks: {text} ({sum(counts.values()) / self.report.ticks:.2%} of all)"


def build_features(
    sources: Sequence[str | Path] | TableTape,
    out: Path | FeatureTable,
    feature_set: FeatureSet,
    every: Every = Every.TICK,
    profile: Profile | None = None,
    gaps: Sequence[Gap] = (),
    on_progress: Callable[[TapeReport], None] | None = None,
    engine: BulkEngine | None = None,
    timezone: str | None = None,
    simulated: bool | None = None,
    keep_rejected: bool = True,
) -> BuildResult:
    """Replays tapes or a table into a feature file or table. Without ``profile``, the first 200 000 ticks determine it.

    Times without a zone are local times of ``timezone``, or UTC. ``gaps`` come from the gap ledger of the recording;
    rows whose windows cover one have ``is_whole`` false. ``keep_rejected`` is that of ``read_ticks``. With an
    ``engine``, workers compute the rows; rows, row order and metadata are bit-identical to a single pass.

    Raises:
        UsageError: a tape does not exist, or ``out`` cannot be written.
        UnreadableFile: the tapes contain no tick, or their ticks give no feature row.
        WorkerLost: a process of the engine ended.
        DataError: a later part of a tape contains kinds of ticks that do not fit the detected profile.
    """
    report = TapeReport()
    # workers know neither time zone nor origin
    reads_ahead = engine is not None and timezone is None and simulated is None
    prefetcher = None
    if engine is not None and reads_ahead and not isinstance(sources, TableTape):
        prefetcher = TapePrefetcher.of(engine, tapes_of(sources), report)
    stream = read_ticks(
        sources,
        report=report,
        keep_rejected=keep_rejected,
        timezone=timezone,
        simulated=simulated,
        prefetcher=prefetcher,
    )
    settled, stream = (profile, stream) if profile is not None else _detect_profile(stream)
    options = ReplayOptions(feature_set, settled, every)
    with _sink(out, feature_set) as sink:
        written = (
            _in_one_pass(options, stream, gaps, sink)
            if engine is None
            else run_units(engine, options, stream, gaps, sink)
        )
        dropped = DroppedEvents(0, 0, 0, 0)
        for dropped in written:  # noqa: B007  the last value is the total
            if on_progress is not None:
                on_progress(report)
        if sink.written == 0:
            named = sources if isinstance(sources, TableTape) else ", ".join(map(str, sources))
            raise UnreadableFile(named, "its ticks give no feature row; check --profile")
        if profile is None:
            _check_profile(settled, report)
        facts = _facts(feature_set, every, settled, report, gaps)
        if isinstance(sink, FeatureFileWriter):
            sink.facts = facts
    return BuildResult(sink.written, facts, dropped, report)


@contextmanager
def _sink(out: Path | FeatureTable, feature_set: FeatureSet) -> Iterator[FeatureTable]:
    """The table, or the file, which appears when the block succeeds."""
    if isinstance(out, FeatureTable):
        yield out
        return
    with write_atomically(out) as part, FeatureFileWriter(part, feature_set) as writer:
        yield writer


def _in_one_pass(
    options: ReplayOptions, stream: Iterator[Ticks], gaps: Sequence[Gap], sink: FeatureTable
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
            written = writing.submit(sink.write, rows)
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
    with open_feature_file(features) as file:
        facts, rows = facts_of(features, file, supplied), file.metadata.num_rows
        _check_labels(features, file.schema_arrow.names, rows, spike, gap_s, horizon)
        on_step(Step("reading prices", 0.0))
        labels = RowLabels.of(_prices(file), facts, spike, gap_s, horizon)
        kept = [field for field in file.schema_arrow.remove_metadata() if field.name not in LABEL_COLUMNS]
        schema = with_facts(pa.schema([*kept, *LABEL_FIELDS]), labels.facts)
        labelled = spike_count = written = 0
        with write_atomically(out) as part, pq.ParquetWriter(part, schema, **PARQUET) as writer:
            for batch in file.iter_batches(row_group(schema), columns=[field.name for field in kept]):
                table = labels.add(pa.Table.from_batches([batch]), schema)
                writer.write_table(table)
                written += len(table)
                on_step(Step(f"{written:,} rows", LABEL_SHARE + (1.0 - LABEL_SHARE) * written / rows))
                labelled += len(table) - table["volatility_spike"].null_count
                spike_count += pc.sum(table["volatility_spike"]).as_py() or 0
    return LabelResult(rows, labelled, spike_count, labels.facts)


def label_table(
    rows: pa.Table, facts: FeatureFacts, spike: SpikeDefinition, horizon: int = HORIZON_S, name: str = "the frame"
) -> pa.Table:
    """``label_file`` for rows in memory, which messages name ``name``; the result has its facts in the metadata."""
    _check_labels(name, rows.column_names, len(rows), spike, SESSION_GAP_S, horizon)
    labels = RowLabels.of([rows], facts, spike, SESSION_GAP_S, horizon)
    kept = rows.drop_columns([column for column in LABEL_COLUMNS if column in rows.column_names])
    return labels.add(kept, with_facts(pa.schema([*kept.schema, *LABEL_FIELDS]), labels.facts))


def _check_labels(
    source: object, names: Sequence[str], rows: int, spike: SpikeDefinition, gap_s: float, horizon: int
) -> None:
    """Raises if the rows of a file or table with these columns cannot be labelled."""
    if not 0.0 < gap_s < float("inf") or not MINUTE_S <= horizon <= LONGEST_HORIZON_S:
        raise UsageError(
            f"the session gap must be above 0 and the horizon {MINUTE_S} to {LONGEST_HORIZON_S} s; "
            f"were {gap_s} and {horizon}"
        )
    if rows == 0:
        raise NotEnoughData(f"{source} has no rows: replay a longer tape")
    if spike.kind is SpikeKind.JUMP and TRAILING_HOUR not in names:
        raise UnreadableFile(
            source,
            f"spike definition {spike} needs the column {TRAILING_HOUR}; replay with --feature-set full, "
            "or choose level, fixed or percentile",
        )


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


def _prices(file: pq.ParquetFile) -> Iterator[pa.Table]:
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
    parts: Iterable[pa.Table], facts: FeatureFacts, gap_s: float, horizon: int
) -> dict[str, SecondVolatility]:
    """The future volatility of each second, by product."""
    grids: dict[str, SecondGrid] = {}
    for table in parts:
        time, price = numbers(table, "timestamp").astype(np.int64), numbers(table, "price")
        session = numbers(table, "session_id") if "session_id" in table.column_names else np.zeros(len(time), np.int64)
        for product, rows in _products(table):
            if product not in grids:
                losses = [(loss.start, loss.end) for loss in facts.losses if product in loss.products]
                is_per_second = facts.every is Every.SECOND
                grids[product] = SecondGrid(int(gap_s * SECOND_NS), is_per_second=is_per_second, gaps=losses)
            grid = grids[product]
            if np.any(np.diff(time[rows]) < 0):
                raise DataError(
                    f"rows of {product} are not in time order: sort them by timestamp; `volspike consolidate` does"
                )
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


@dataclass(frozen=True, slots=True, eq=False)
class RowLabels:
    """The labels of feature rows, by product and second, and the facts of the labelled rows."""

    facts: FeatureFacts
    spike: SpikeDefinition
    futures: dict[str, SecondVolatility]
    levels: dict[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls, parts: Iterable[pa.Table], facts: FeatureFacts, spike: SpikeDefinition, gap_s: float, horizon: int
    ) -> RowLabels:
        """The labels of the rows in ``parts``, in time order by product, with ``timestamp, product_id, price``."""
        futures = _future_volatilities(parts, facts, gap_s, horizon)
        return cls(_label_facts(facts, spike, futures, horizon), spike, futures, _levels(futures, spike, horizon))

    def add(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """Some of the rows with the columns ``LABEL_FIELDS``, as ``schema``."""
        volatility = self._by_second(table, {name: future.volatility for name, future in self.futures.items()})
        if self.spike.kind is SpikeKind.JUMP:
            tau = jump_threshold(numbers(table, TRAILING_HOUR), self.spike.value)
        elif self.levels:
            tau = self._by_second(table, self.levels)
        else:
            tau = np.full(len(volatility), self.facts.tau)
        unknown = np.isnan(volatility) | np.isnan(tau)
        masks = np.isnan(volatility), unknown, np.isnan(tau)
        values = volatility, spikes(volatility, tau), tau
        labels = [pa.array(column, mask=mask) for column, mask in zip(values, masks, strict=True)]
        return pa.Table.from_arrays([*table.columns, *labels], schema=schema)

    def _by_second(self, table: pa.Table, values: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The value of each row's second; ``values`` are those of the product's seconds in ``futures``."""
        second = row_second(numbers(table, "timestamp").astype(np.int64), self.facts.every)
        found = np.empty(len(second))
        for product, rows in _products(table):
            found[rows] = values[product][np.searchsorted(self.futures[product].second, second[rows])]
        return found


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
