"""Feature files from tapes, and labels added to feature files; both in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets.bulk import Engine, Recipe, TapePrefetcher, shared
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import (
    LABEL_COLUMNS,
    PARQUET,
    ROW_GROUP,
    FeatureFacts,
    FeatureFileWriter,
    Loss,
    facts_of,
    open_feature_file,
    row_group,
    with_facts,
    write_atomically,
)
from volspike.datasets.splits import DEFAULT_FRACTIONS
from volspike.errors import DataError, NotEnoughData, UnreadableFile, UsageError
from volspike.features import DroppedEvents, Every, FeatureSet, profile_of
from volspike.labels import DEFAULT_PERCENTILE, HORIZON_S, SESSION_GAP_S, SecondGrid, spike_threshold, spikes
from volspike.market import SECOND_NS, Gap, Kind, Profile, Ticks, format_time
from volspike.tape import TapeReport, read_ticks, tapes_of

LOOK_AHEAD_TICKS = 200_000
"""Ticks that are read before the profile of a tape is settled."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a replay made and what it left out."""

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
    engine: Engine | None = None,
) -> BuildResult:
    """Replays tapes into ``out``. Without a ``profile`` the kinds of the first 200 000 ticks tell it.

    ``gaps`` are those that the recording's ledger names; the rows after one are not whole. With an ``engine`` the
    work is shared out; rows, their order and the facts are those of one pass, bit for bit.

    Raises:
        UsageError: no such tape, or ``out`` cannot be written.
        UnreadableFile: not one tick in the tapes.
        WorkerLost: a process of the engine ended.
        DataError: a tape turns out to tell more kinds than it began with.
    """
    report = TapeReport()
    prefetcher = None if engine is None else TapePrefetcher.of(engine, tapes_of(sources), report)
    stream = read_ticks(sources, report=report, prefetcher=prefetcher)
    settled, stream = (profile, stream) if profile is not None else _settle(stream)
    recipe = Recipe(feature_set, settled, every)
    with write_atomically(out) as part, FeatureFileWriter(part, feature_set) as writer:
        written = (
            _in_one_pass(recipe, stream, gaps, writer)
            if engine is None
            else shared(engine, recipe, stream, gaps, writer)
        )
        dropped = DroppedEvents(0, 0, 0, 0)
        for dropped in written:  # noqa: B007  the last is the whole
            if on_progress is not None:
                on_progress(report)
        if writer.written == 0:
            raise UnreadableFile(", ".join(map(str, sources)), "its ticks make no feature row; is --profile right?")
        if profile is None:
            _agree(settled, report)
        facts = writer.facts = _facts(feature_set, every, settled, report, gaps)
    return BuildResult(writer.written, facts, dropped, report)


def _in_one_pass(
    recipe: Recipe, stream: Iterator[Ticks], gaps: Sequence[Gap], writer: FeatureFileWriter
) -> Iterator[DroppedEvents]:
    """Writes the rows of the stream; yields now and then, and last of all, what became of its events.

    Reading, features and writing go on at the same time, each in a thread of its own: kernel and Parquet hold no GIL.
    """
    engine = recipe.engine()
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
    """The same parts, read in a thread while the ones before them are worked on; at most ``most`` lie ready."""
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
        simulated=report.simulated,
        losses=tuple(Loss(gap.start, gap.end, gap.products) for gap in gaps),
    )


def _settle(stream: Iterator[Ticks]) -> tuple[Profile, Iterator[Ticks]]:
    """The profile of a tape by its first ticks, and the whole stream again."""
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


def _agree(settled: Profile, report: TapeReport) -> None:
    told = profile_of(report.kinds)
    if told is not settled:
        raise DataError(
            f"the tape began as profile {settled} and went on as {told}: counts would mean two things in one file; "
            f"name the one you want with --profile {told}"
        )


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What labelling found: ``labelled`` rows have a known future, ``spikes`` of them are at or above τ."""

    rows: int
    labelled: int
    spikes: int
    facts: FeatureFacts


def label_file(
    features: Path,
    out: Path,
    percentile: float = DEFAULT_PERCENTILE,
    gap_s: float = SESSION_GAP_S,
    tau: float | None = None,
) -> LabelResult:
    """Writes ``features`` to ``out`` with ``future_volatility`` and ``volatility_spike``; they may be one file.

    τ is the percentile over the first 70 % of labelled rows, so that a later row never moves an earlier label, unless
    it is given. Training takes its own τ from its own training rows; this column is for looking and counting.
    Rows whose future is unknown have null in both columns.

    Raises:
        UsageError: a percentile or gap that is none.
        UnreadableFile: no feature file.
        NotEnoughData: no row's future is known, or the market stood still.
    """
    if not 0.0 < percentile < 100.0 or not 0.0 < gap_s < float("inf") or (tau is not None and not tau > 0.0):
        raise UsageError(f"percentile must lie in (0, 100), gap and τ above 0: were {percentile}, {gap_s} and {tau}")
    with open_feature_file(features) as file:
        facts = facts_of(features, file)
        if file.metadata.num_rows == 0:
            raise NotEnoughData(f"{features} has no rows: replay a longer tape")
        futures = _futures(file, facts, gap_s)
        threshold, told = (tau, "given") if tau is not None else _threshold(futures, percentile)
        facts = msgspec.structs.replace(
            facts, tau=threshold, label_percentile=None if tau is not None else percentile, tau_from=told
        )
        with write_atomically(out) as part:
            labelled, spike_count = _write(file, part, facts, futures)
    return LabelResult(file.metadata.num_rows, labelled, spike_count, facts)


@dataclass(frozen=True, slots=True, eq=False)
class Futures:
    """One product's seconds that have rows: (n,) the second, its future volatility and its number of rows."""

    second: NDArray[np.int64]
    volatility: NDArray[np.float64]
    rows: NDArray[np.int64]


def row_second(timestamp: NDArray[np.int64], every: Every) -> NDArray[np.int64]:
    """The second that a row belongs to: that of its tick, or the one at whose end it stands."""
    return timestamp // SECOND_NS - (1 if every is Every.SECOND else 0)


def _batches(file: pq.ParquetFile) -> Iterator[pa.Table]:
    columns = [name for name in ("timestamp", "product_id", "session_id", "price") if name in file.schema_arrow.names]
    for batch in file.iter_batches(ROW_GROUP, columns=columns):
        yield pa.Table.from_batches([batch])


def _products(table: pa.Table) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Each product of a table with the numbers of its rows."""
    encoded = table["product_id"].combine_chunks()
    encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
    codes = np.asarray(encoded.indices)
    for code in np.unique(codes):
        yield encoded.dictionary[int(code)].as_py(), np.flatnonzero(codes == code)


def _futures(file: pq.ParquetFile, facts: FeatureFacts, gap_s: float) -> dict[str, Futures]:
    """Every product's seconds with what followed them."""
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
    return {product: _joined(grid) for product, grid in grids.items()}


def _joined(grid: SecondGrid) -> Futures:
    sessions = list(grid.labels())
    second, volatility, rows = (np.concatenate(part) for part in zip(*sessions, strict=True))
    return Futures(second, volatility, rows)


def _threshold(futures: dict[str, Futures], percentile: float) -> tuple[float, str]:
    """τ over the first 70 % of the labelled rows of all products, and a sentence on where it comes from."""
    second = np.concatenate([future.second for future in futures.values()])
    volatility = np.concatenate([future.volatility for future in futures.values()])
    rows = np.where(np.isfinite(volatility), np.concatenate([future.rows for future in futures.values()]), 0)
    order = np.argsort(second, kind="stable")
    reached = np.cumsum(rows[order])
    last = np.searchsorted(reached, DEFAULT_FRACTIONS[0] * reached[-1]) if len(reached) else 0
    cut = int(second[order][min(last, len(order) - 1)])
    training = second + HORIZON_S < cut
    tau = spike_threshold(np.where(training, volatility, np.nan), percentile, rows)
    share = f"{DEFAULT_FRACTIONS[0]:.0%}"
    return tau, f"percentile {percentile:g} of the first {share} of labelled rows, until {format_time(cut * SECOND_NS)}"


def _write(file: pq.ParquetFile, part: Path, facts: FeatureFacts, futures: dict[str, Futures]) -> tuple[int, int]:
    """Every row with its two labels; returns how many have one, and how many of those are spikes."""
    kept = [field for field in file.schema_arrow.remove_metadata() if field.name not in LABEL_COLUMNS]
    fields = [*kept, pa.field("future_volatility", pa.float64()), pa.field("volatility_spike", pa.int8())]
    schema = with_facts(pa.schema(fields), facts)
    tau = facts.tau or 0.0
    labelled = spike_count = 0
    with pq.ParquetWriter(part, schema, **PARQUET) as writer:
        for batch in file.iter_batches(row_group(schema), columns=[field.name for field in kept]):
            table = pa.Table.from_batches([batch])
            volatility = _volatility_of(table, facts, futures)
            unknown = np.isnan(volatility)
            spike = spikes(volatility, tau)
            labels = [_nullable(volatility, unknown), _nullable(spike, unknown)]
            writer.write_table(pa.Table.from_arrays([*table.columns, *labels], schema=schema))
            labelled += int(np.count_nonzero(~unknown))
            spike_count += int(spike.sum())
    return labelled, spike_count


def _nullable(values: NDArray[Any], unknown: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=unknown)


def _volatility_of(table: pa.Table, facts: FeatureFacts, futures: dict[str, Futures]) -> NDArray[np.float64]:
    """Each row's future volatility, looked up by its second."""
    second = row_second(numbers(table, "timestamp").astype(np.int64), facts.every)
    volatility = np.empty(len(second))
    for product, rows in _products(table):
        future = futures[product]
        volatility[rows] = future.volatility[np.searchsorted(future.second, second[rows])]
    return volatility
