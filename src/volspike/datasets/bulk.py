"""Parallel replay with the same rows, row order and metadata as a single pass.

Worker processes read the tapes ahead of use, each into a temporary Arrow file. The stream of ticks is split into
partitions of one or several products, and each partition into units that continue the state of the unit before.
A unit that starts with a session needs only the state that survives a session. A second engine with the core features
computes that state early, so the unit does not wait for earlier sessions. With a leader product, every row may need the
state of another product, so there is one partition. Rows are written in tick order and in bounded memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from msgspec.structs import replace as replaced
from numpy.typing import NDArray

from volspike.datasets.feature_file import FeatureTable, feature_schema, record_batch
from volspike.features import DroppedEvents, Every, FeatureEngine, FeatureRows, FeatureSet
from volspike.features.kernel.layout import SESSION_GAP_NS
from volspike.market import SECOND_NS, Cause, Gap, Profile, Ticks
from volspike.market.tick import DTYPES
from volspike.tape import rejected_path
from volspike.tape.reader import read_ticks
from volspike.tape.report import TapeReport

_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in DTYPES.items()])


def spool_tape(tape: Path, spool: Path) -> TapeReport:
    """Reads a tape into the file ``spool``, writes damaged lines to the rejected file, and returns the report."""
    report = TapeReport()
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as stream:
        for ticks in read_ticks([tape], report=report):
            batch = pa.record_batch([pa.array(column) for _, column in ticks.columns()], schema=_SCHEMA)
            stream.write_batch(batch, {"products": json.dumps(ticks.products)})
    return report


def read_spool(spool: Path) -> Iterator[Ticks]:
    """The ticks of a spool file, in the chunks in which they were written."""
    with pa.memory_map(str(spool)) as file, pa.ipc.open_stream(file) as stream:
        while True:
            try:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            columns = {name: np.array(batch.column(name)) for name in DTYPES}
            yield Ticks(tuple(json.loads(metadata["products"])), **columns)


def enter_worker() -> None:
    """Initializes a worker process: it ignores Ctrl-C and exits when its parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class TapeReading(Protocol):
    """A tape that a worker reads."""

    def ticks(self) -> Iterator[Ticks]:
        """The ticks in tape order; waits for the worker. To be called once."""
        ...

    def report(self) -> TapeReport:
        """The report of the tape; complete after the last tick."""
        ...


class TapeReaders(Protocol):
    """Workers that read tapes."""

    @property
    def workers(self) -> int:
        """The number of tapes that are read at the same time."""
        ...

    def read(self, tape: Path) -> TapeReading:
        """Starts to read a tape."""
        ...


class TapePrefetcher:
    """Reads the tapes of one replay ahead of use; at most ``readers.workers`` tapes are in progress or ready.

    The report equals that of a read without workers, except that its lists are ordered by tape if tapes overlap.
    """

    def __init__(self, readers: TapeReaders, report: TapeReport) -> None:
        self._readers = readers
        self._report = report
        self._waiting: deque[Path] = deque()
        self._started: dict[Path, TapeReading] = {}

    @classmethod
    def of(cls, readers: TapeReaders, tapes: Sequence[Path], report: TapeReport) -> TapePrefetcher | None:
        """A prefetcher; None for a single tape, and for tapes that share one file of rejected lines."""
        return cls(readers, report) if len({rejected_path(tape) for tape in tapes}) == len(tapes) > 1 else None

    def expect(self, tapes: Sequence[Path]) -> None:
        """Queues tapes and starts to read the first of them."""
        self._waiting.extend(tapes)
        self._fill()

    def ticks(self, tape: Path) -> Iterator[Ticks]:
        """The ticks of one of the queued tapes."""
        while tape not in self._started:
            self._start_next()
        reading = self._started.pop(tape)
        self._fill()
        yield from reading.ticks()
        self._report.add(reading.report())

    def _fill(self) -> None:
        while self._waiting and len(self._started) < self._readers.workers:
            self._start_next()

    def _start_next(self) -> None:
        tape = self._waiting.popleft()
        self._started[tape] = self._readers.read(tape)


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Feature set, profile and row rate of a replay."""

    feature_set: FeatureSet
    profile: Profile
    every: Every

    def create_engine(self) -> FeatureEngine:
        """A new feature engine without state."""
        return FeatureEngine(self.feature_set, self.profile, self.every)


@dataclass(frozen=True, slots=True)
class PlacedGap:
    """A gap and the stream position of the first tick received after it."""

    position: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class UnitInput:
    """Ticks in order, their positions in the complete stream, and the gaps between them."""

    options: ReplayOptions
    ticks: Ticks
    positions: NDArray[np.int64]
    gaps: tuple[PlacedGap, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitResult:
    """The rows of a unit, the stream position of each row's tick, and the dropped events of its partition so far."""

    rows: pa.Table
    positions: NDArray[np.int64]
    dropped: DroppedEvents


def run_unit(unit: UnitInput, state: bytes | None) -> tuple[UnitResult, bytes]:
    """Computes a unit from ``state`` (None: a new engine) and returns its result and the final state."""
    if not unit.ticks.time.flags.writeable:  # Ray passes read-only arrays, for which the kernel would be compiled again
        unit = replace(unit, ticks=unit.ticks[np.arange(len(unit.ticks))])
    engine = unit.options.create_engine()
    if state is not None:
        engine.restore(state)
    schema = feature_schema(unit.options.feature_set)
    batches, positions = [], [np.empty(0, np.int64)]
    for first, rows in _rows(engine, unit):
        batches.append(record_batch(rows, schema))
        positions.append(unit.positions[first + rows.event])
    table = pa.Table.from_batches(batches, schema)
    return UnitResult(table, np.concatenate(positions), engine.dropped()), engine.snapshot()


def _rows(engine: FeatureEngine, unit: UnitInput) -> Iterator[tuple[int, FeatureRows]]:
    """Chunks of rows, each with the index of the tick at which the event numbers of the chunk start."""
    done = 0
    for placed in unit.gaps:
        at = int(np.searchsorted(unit.positions, placed.position))
        yield from ((done, rows) for rows in engine.run(unit.ticks[done:at]))
        engine.mark_gap(placed.gap)
        done = at
    yield from ((done, rows) for rows in engine.run(unit.ticks[done:]))


@dataclass(frozen=True, slots=True)
class Unit:
    """Input for a partition. ``initial_state`` None: continue from the previous unit of the partition."""

    partition: int
    input: UnitInput
    initial_state: bytes | None = None


@dataclass(slots=True)
class _Partition:
    products: list[str] = field(default_factory=list)
    ticks: int = 0
    newest: int | None = None
    gaps: list[PlacedGap] = field(default_factory=list)


class StreamPartitioner:
    """Splits a stream of ticks into units of at most ``count`` partitions."""

    def __init__(self, options: ReplayOptions, count: int) -> None:
        self._options = options
        self._count = 1 if options.feature_set.leader is not None else count
        self._partitions: list[_Partition] = []
        self._partition_of: dict[str, int] = {}
        self._scout = FeatureEngine(FeatureSet(), options.profile, Every.TICK)

    def units(self, ticks: Ticks, first: int, gaps: Sequence[PlacedGap]) -> Iterator[Unit]:
        """The units of the next ticks of the stream; ``first`` is the stream position of the first tick.

        The units of one partition are in stream order.
        """
        present = np.unique(ticks.product)
        partitions = np.full(len(ticks.products), -1)
        for code in present:
            partitions[code] = self._assign_partition(ticks.products[code])
        for placed in gaps:
            for product in placed.gap.products:
                self._partitions[self._assign_partition(product)].gaps.append(
                    PlacedGap(placed.position, replaced(placed.gap, products=(product,)))
                )
        partition_of_tick = partitions[ticks.product]
        for number in np.unique(partition_of_tick):
            rows = np.flatnonzero(partition_of_tick == number)
            yield from self._partition_units(int(number), ticks[rows], rows + first)

    def _assign_partition(self, product: str) -> int:
        """The partition of a product. A new product gets a free partition, else the one with the fewest ticks."""
        known = self._partition_of.get(product)
        if known is not None:
            return known
        if len(self._partitions) < self._count:
            self._partitions.append(_Partition())
            number = len(self._partitions) - 1
        else:
            number = min(range(len(self._partitions)), key=lambda partition: self._partitions[partition].ticks)
        self._partitions[number].products.append(product)
        self._partition_of[product] = number
        return number

    def _partition_units(self, number: int, ticks: Ticks, positions: NDArray[np.int64]) -> Iterator[Unit]:
        partition = self._partitions[number]
        unit_input = UnitInput(self._options, ticks, positions, tuple(partition.gaps))
        partition.ticks += len(ticks)
        partition.gaps.clear()
        cut = self._find_session_start(partition, unit_input) if len(partition.products) == 1 else None
        if cut is None:
            yield Unit(number, unit_input)
            return
        at, initial_state = cut
        # the first tick of the next session completes the row of this session's last second
        end = at + 1 if self._options.every is Every.SECOND else at
        if end:
            yield Unit(number, replace(unit_input, ticks=ticks[:end], positions=positions[:end]))
        yield Unit(number, replace(unit_input, ticks=ticks[at:], positions=positions[at:]), initial_state)

    def _find_session_start(self, partition: _Partition, unit: UnitInput) -> tuple[int, bytes] | None:
        """The index of the last tick that starts a session, and the engine state before it."""
        (product,) = partition.products
        if any(placed.gap.cause is Cause.CLOCK for placed in unit.gaps):
            self._pass_clock_steps(unit)
            return None
        ticks = unit.ticks
        times = ticks.time if partition.newest is None else np.append(partition.newest, ticks.time)
        newest = np.maximum.accumulate(times)
        partition.newest = int(newest[-1])
        silent = np.flatnonzero(times[1:] - newest[:-1] > SESSION_GAP_NS) + len(ticks) - len(times) + 1
        if not len(silent):
            self._feed_scout(ticks)
            return None
        at = int(silent[-1])
        self._feed_scout(ticks[:at])
        initial_state = self._scout.between_sessions(product, self._options.feature_set, self._options.every)
        # a trade or a duplicate starts no session; it produces no row
        is_start = self._feed_scout(ticks[at : at + 1]) == 1
        self._feed_scout(ticks[at + 1 :])
        return (at, initial_state) if is_start else None

    def _pass_clock_steps(self, unit: UnitInput) -> None:
        """Ticks with clock steps between them, which begin sessions too, are not cut."""
        done = 0
        for placed in unit.gaps:
            at = int(np.searchsorted(unit.positions, placed.position))
            self._feed_scout(unit.ticks[done:at])
            self._scout.mark_gap(placed.gap)
            done = at
        self._feed_scout(unit.ticks[done:])

    def _feed_scout(self, ticks: Ticks) -> int:
        return sum(len(rows) for rows in self._scout.run(ticks))


STRETCH_ROWS = 65_536
"""Approximate rows per stretch of the stream; at most ``workers`` + 2 stretches are in progress."""

_LEAST_TICKS = 256


class PendingUnit(Protocol):
    """A submitted unit."""

    @property
    def state(self) -> Any:
        """The final state, in the form that ``BulkEngine.start`` accepts; it may still be pending."""
        ...

    def result(self) -> UnitResult:
        """The result of the unit; waits for it."""
        ...


class BulkEngine(TapeReaders, Protocol):
    """Runs units and reads tapes: local threads and processes, or Ray."""

    def start(self, unit: UnitInput, state: Any) -> PendingUnit:
        """Submits a unit. ``state`` is bytes, the ``state`` of a pending unit, or None for a new engine."""
        ...


def run_units(
    engine: BulkEngine, options: ReplayOptions, stream: Iterator[Ticks], gaps: Sequence[Gap], writer: FeatureTable
) -> Iterator[DroppedEvents]:
    """Writes the rows of the stream; yields the counts of dropped events after each stretch and at the end."""
    partitioner, states = StreamPartitioner(options, 4 * engine.workers), dict[int, Any]()
    dropped: dict[int, DroppedEvents] = {}
    running: deque[list[tuple[int, PendingUnit]]] = deque()
    with ThreadPoolExecutor(1) as writing:
        written = Future[None]()
        written.set_result(None)
        for ticks, position, placed_gaps in _split_stream(stream, options.every, gaps):
            batch = []
            for unit in partitioner.units(ticks, position, placed_gaps):
                state = states.get(unit.partition) if unit.initial_state is None else unit.initial_state
                pending = engine.start(unit.input, state)
                states[unit.partition] = pending.state
                batch.append((unit.partition, pending))
            running.append(batch)
            if len(running) > engine.workers + 2:
                rows = _collect_results(running.popleft(), dropped)
                written.result()
                written = writing.submit(_write, writer, rows)
                yield _sum_dropped(dropped)
        while running:
            rows = _collect_results(running.popleft(), dropped)
            written.result()
            written = writing.submit(_write, writer, rows)
        written.result()
    yield _sum_dropped(dropped)


def _split_stream(
    stream: Iterator[Ticks], every: Every, gaps: Sequence[Gap]
) -> Iterator[tuple[Ticks, int, list[PlacedGap]]]:
    """Stretches of about ``STRETCH_ROWS`` rows, the position of their first tick, and the gaps that end in them."""
    waiting, position = deque(sorted(gaps, key=lambda gap: gap.end)), 0
    for chunk in stream:
        for ticks in _pieces(chunk) if every is Every.SECOND else (chunk,):
            placed_gaps = []
            while waiting and len(ticks) and waiting[0].end <= ticks.received.max():
                at = int(np.argmax(ticks.received >= waiting[0].end))
                placed_gaps.append(PlacedGap(position + at, waiting.popleft()))
            yield ticks, position, placed_gaps
            position += len(ticks)


def _pieces(ticks: Ticks) -> Iterator[Ticks]:
    """Splits ticks so that each piece covers a bounded number of seconds: rows per second may outnumber ticks."""
    seconds = np.maximum.accumulate(ticks.time) // SECOND_NS
    most = max(1, STRETCH_ROWS // max(1, len(ticks.products)))
    first = 0
    while first < len(ticks):
        end = int(np.searchsorted(seconds, seconds[first] + most, side="right"))
        end = max(end, first + _LEAST_TICKS)
        yield ticks[first:end]
        first = end


def _collect_results(batch: list[tuple[int, PendingUnit]], dropped: dict[int, DroppedEvents]) -> list[UnitResult]:
    results = []
    for partition, pending in batch:
        result = pending.result()
        dropped[partition] = result.dropped
        results.append(result)
    return results


def _sum_dropped(dropped: dict[int, DroppedEvents]) -> DroppedEvents:
    counts = dropped.values()
    return DroppedEvents(
        sum(one.late for one in counts),
        sum(one.duplicates for one in counts),
        sum(one.unplaced for one in counts),
        sum(one.invalid for one in counts),
    )


def _write(writer: FeatureTable, results: list[UnitResult]) -> None:
    """Writes the rows of a stretch in tick order."""
    parts = [one for one in results if len(one.rows)]
    if len(parts) == 1:
        writer.write_table(parts[0].rows)
    elif parts:
        order = np.argsort(np.concatenate([one.positions for one in parts]), kind="stable")
        table = pa.concat_tables([one.rows for one in parts]).unify_dictionaries().combine_chunks()
        writer.write_table(table.take(pa.array(order)))
