"""Replay shared among workers, with the rows, their order and the facts of a single pass.

The tapes are read ahead by other processes, each into a temporary Arrow file. The stream of ticks is cut into units: a
lane is one product, or several if there are many, and its units continue each other's state. At the start of a session
a unit needs only what outlives a session, which a second engine of the core features computes early, so that the new
session does not wait for the older ones. With a leader, rows may need another product's state, so there is one lane.
Finished units are written in the order of the ticks that made their rows, in bounded memory.
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

from volspike.datasets.feature_file import FeatureFileWriter, feature_schema, record_batch
from volspike.features import DroppedEvents, Every, FeatureEngine, FeatureRows, FeatureSet
from volspike.features.kernel.layout import SESSION_GAP_NS
from volspike.market import SECOND_NS, Gap, Profile, Ticks
from volspike.market.tick import DTYPES
from volspike.tape import rejected_path
from volspike.tape.reader import read_ticks
from volspike.tape.report import TapeReport

_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in DTYPES.items()])


def spool_tape(tape: Path, spool: Path) -> TapeReport:
    """Reads a tape into ``spool``, its damaged lines set aside; what became of it."""
    report = TapeReport()
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as stream:
        for ticks in read_ticks([tape], report=report):
            batch = pa.record_batch([pa.array(column) for _, column in ticks.columns()], schema=_SCHEMA)
            stream.write_batch(batch, {"products": json.dumps(ticks.products)})
    return report


def read_spool(spool: Path) -> Iterator[Ticks]:
    """The ticks in the parts in which they were written."""
    with pa.memory_map(str(spool)) as file, pa.ipc.open_stream(file) as stream:
        while True:
            try:
                batch, told = stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            columns = {name: np.array(batch.column(name)) for name in DTYPES}
            yield Ticks(tuple(json.loads(told["products"])), **columns)


def enter_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Reading(Protocol):
    """A tape that is being read elsewhere."""

    def ticks(self) -> Iterator[Ticks]:
        """Its ticks in their order, once; waits for them."""
        ...

    def report(self) -> TapeReport:
        """What became of the tape; after the last tick."""
        ...


class Readers(Protocol):
    """Who reads tapes elsewhere. ``workers`` is how many are read at the same time."""

    @property
    def workers(self) -> int:
        """Their number."""
        ...

    def read(self, tape: Path) -> Reading:
        """Begins to read a tape."""
        ...


class TapePrefetcher:
    """The tapes of one replay: as many as there are workers are read, or lie ready, before they are asked for.

    The report is that of reading them here; its lists go tape by tape, also where tapes overlap.
    """

    def __init__(self, readers: Readers, report: TapeReport) -> None:
        self._readers = readers
        self._report = report
        self._waiting: deque[Path] = deque()
        self._begun: dict[Path, Reading] = {}

    @classmethod
    def of(cls, readers: Readers, tapes: Sequence[Path], report: TapeReport) -> TapePrefetcher | None:
        """None where nothing is won: one tape, or tapes that set their damaged lines aside in one file, in turn."""
        return cls(readers, report) if len({rejected_path(tape) for tape in tapes}) == len(tapes) > 1 else None

    def expect(self, tapes: Sequence[Path]) -> None:
        """Begins with the first of these."""
        self._waiting.extend(tapes)
        self._fill()

    def ticks(self, tape: Path) -> Iterator[Ticks]:
        """The ticks of one of the expected tapes."""
        while tape not in self._begun:
            self._begin()
        reading = self._begun.pop(tape)
        self._fill()
        yield from reading.ticks()
        self._report.add(reading.report())

    def _fill(self) -> None:
        while self._waiting and len(self._begun) < self._readers.workers:
            self._begin()

    def _begin(self) -> None:
        tape = self._waiting.popleft()
        self._begun[tape] = self._readers.read(tape)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which rows are made of ticks."""

    feature_set: FeatureSet
    profile: Profile
    every: Every

    def engine(self) -> FeatureEngine:
        """An engine that has met no tick."""
        return FeatureEngine(self.feature_set, self.profile, self.every)


@dataclass(frozen=True, slots=True)
class Mark:
    """A gap and the place in the whole stream of the first tick that was received after it."""

    place: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Work:
    """Ticks in their order, and the gaps among them. ``places`` are those of the ticks in the whole stream."""

    recipe: Recipe
    ticks: Ticks
    places: NDArray[np.int64]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """The rows of a unit, the place in the stream of the tick that made each, and the counts of its products so far."""

    rows: pa.Table
    places: NDArray[np.int64]
    dropped: DroppedEvents


def make(work: Work, state: bytes | None) -> tuple[Made, bytes]:
    """The rows of a unit that goes on from ``state`` (None: from nothing), and the state that it leaves behind."""
    if not work.ticks.time.flags.writeable:  # as Ray hands them out; the kernel would be compiled once more for them
        work = replace(work, ticks=work.ticks[np.arange(len(work.ticks))])
    engine = work.recipe.engine()
    if state is not None:
        engine.restore(state)
    schema = feature_schema(work.recipe.feature_set)
    batches, places = [], [np.empty(0, np.int64)]
    for first, rows in _rows(engine, work):
        batches.append(record_batch(rows, schema))
        places.append(work.places[first + rows.event])
    table = pa.Table.from_batches(batches, schema)
    return Made(table, np.concatenate(places), engine.dropped()), engine.snapshot()


def _rows(engine: FeatureEngine, work: Work) -> Iterator[tuple[int, FeatureRows]]:
    """The rows in parts, each with the index of the tick from which its own indices count."""
    done = 0
    for mark in work.marks:
        at = int(np.searchsorted(work.places, mark.place))
        yield from ((done, rows) for rows in engine.run(work.ticks[done:at]))
        engine.mark_gap(mark.gap)
        done = at
    yield from ((done, rows) for rows in engine.run(work.ticks[done:]))


@dataclass(frozen=True, slots=True)
class Unit:
    """Work of a lane. ``begins`` is the state it begins with; None: it goes on where its lane stands."""

    lane: int
    work: Work
    begins: bytes | None = None


@dataclass(slots=True)
class _Lane:
    products: list[str] = field(default_factory=list)
    ticks: int = 0
    newest: int | None = None
    marks: list[Mark] = field(default_factory=list)


class Lanes:
    """Cuts a stream into units; ``count`` is how many lanes there may be."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._recipe = recipe
        self._count = 1 if recipe.feature_set.leader is not None else count
        self._lanes: list[_Lane] = []
        self._lane_of: dict[str, int] = {}
        self._scout = FeatureEngine(FeatureSet(), recipe.profile, Every.TICK)

    def units(self, ticks: Ticks, first: int, marks: Sequence[Mark]) -> Iterator[Unit]:
        """The units of the next ticks of the stream, whose first has the place ``first``.

        Units of one lane come in their order.
        """
        present = np.unique(ticks.product)
        lanes = np.full(len(ticks.products), -1)
        for code in present:
            lanes[code] = self._lane(ticks.products[code])
        for mark in marks:
            for product in mark.gap.products:
                self._lanes[self._lane(product)].marks.append(Mark(mark.place, replaced(mark.gap, products=(product,))))
        of_tick = lanes[ticks.product]
        for number in np.unique(of_tick):
            rows = np.flatnonzero(of_tick == number)
            yield from self._lane_units(int(number), ticks[rows], rows + first)

    def _lane(self, product: str) -> int:
        """The lane of a product; a new one gets its own while there are some, then that with the fewest ticks."""
        known = self._lane_of.get(product)
        if known is not None:
            return known
        if len(self._lanes) < self._count:
            self._lanes.append(_Lane())
            number = len(self._lanes) - 1
        else:
            number = min(range(len(self._lanes)), key=lambda lane: self._lanes[lane].ticks)
        self._lanes[number].products.append(product)
        self._lane_of[product] = number
        return number

    def _lane_units(self, number: int, ticks: Ticks, places: NDArray[np.int64]) -> Iterator[Unit]:
        lane = self._lanes[number]
        work = Work(self._recipe, ticks, places, tuple(lane.marks))
        lane.ticks += len(ticks)
        lane.marks.clear()
        cut = self._session(lane, ticks) if len(lane.products) == 1 else None
        if cut is None:
            yield Unit(number, work)
            return
        at, begins = cut
        # the row of a session's last second is made by the tick that begins the next one
        end = at + 1 if self._recipe.every is Every.SECOND else at
        if end:
            yield Unit(number, replace(work, ticks=ticks[:end], places=places[:end]))
        yield Unit(number, replace(work, ticks=ticks[at:], places=places[at:]), begins)

    def _session(self, lane: _Lane, ticks: Ticks) -> tuple[int, bytes] | None:
        """The last tick here that begins a session after an older one, and the state to begin with."""
        (product,) = lane.products
        times = ticks.time if lane.newest is None else np.append(lane.newest, ticks.time)
        newest = np.maximum.accumulate(times)
        lane.newest = int(newest[-1])
        silent = np.flatnonzero(times[1:] - newest[:-1] > SESSION_GAP_NS) + len(ticks) - len(times) + 1
        if not len(silent):
            self._follow(ticks)
            return None
        at = int(silent[-1])
        self._follow(ticks[:at])
        begins = self._scout.between_sessions(product, self._recipe.feature_set, self._recipe.every)
        # a trade begins none, nor does what was told before: then there is no row either
        has_begun = self._follow(ticks[at : at + 1]) == 1
        self._follow(ticks[at + 1 :])
        return (at, begins) if has_begun else None

    def _follow(self, ticks: Ticks) -> int:
        return sum(len(rows) for rows in self._scout.run(ticks))


STRETCH_ROWS = 65_536
"""Rows that a stretch of the stream makes, about; as many stretches as workers and two more are on their way."""

_LEAST_TICKS = 256


class Pending(Protocol):
    """A unit that was given out. ``state`` is what the engine takes to go on from it."""

    @property
    def state(self) -> Any:
        """What the next unit goes on from; need not be there yet."""
        ...

    def made(self) -> Made:
        """Its rows; waits for them."""
        ...


class Engine(Readers, Protocol):
    """Who does the work: threads and processes of this machine, or Ray."""

    def begin(self, work: Work, state: Any) -> Pending:
        """Gives out a unit that goes on from ``state``: bytes, a unit's ``state``, or None for nothing."""
        ...


def shared(
    engine: Engine, recipe: Recipe, stream: Iterator[Ticks], gaps: Sequence[Gap], writer: FeatureFileWriter
) -> Iterator[DroppedEvents]:
    """Writes the rows of the stream; yields after each stretch, and last of all, what became of its events."""
    lanes, states = Lanes(recipe, 4 * engine.workers), dict[int, Any]()
    dropped: dict[int, DroppedEvents] = {}
    under_way: deque[list[tuple[int, Pending]]] = deque()
    with ThreadPoolExecutor(1) as writing:
        written = Future[None]()
        written.set_result(None)
        for ticks, place, marks in _stretches(stream, recipe.every, gaps):
            given = []
            for unit in lanes.units(ticks, place, marks):
                state = states.get(unit.lane) if unit.begins is None else unit.begins
                pending = engine.begin(unit.work, state)
                states[unit.lane] = pending.state
                given.append((unit.lane, pending))
            under_way.append(given)
            if len(under_way) > engine.workers + 2:
                rows = _finished(under_way.popleft(), dropped)
                written.result()
                written = writing.submit(_write, writer, rows)
                yield _total(dropped)
        while under_way:
            rows = _finished(under_way.popleft(), dropped)
            written.result()
            written = writing.submit(_write, writer, rows)
        written.result()
    yield _total(dropped)


def _stretches(stream: Iterator[Ticks], every: Every, gaps: Sequence[Gap]) -> Iterator[tuple[Ticks, int, list[Mark]]]:
    """Parts of the stream that make about ``STRETCH_ROWS`` rows, the place of their first tick, the gaps that end."""
    waiting, place = deque(sorted(gaps, key=lambda gap: gap.end)), 0
    for chunk in stream:
        for ticks in _pieces(chunk) if every is Every.SECOND else (chunk,):
            marks = []
            while waiting and len(ticks) and waiting[0].end <= ticks.received.max():
                at = int(np.argmax(ticks.received >= waiting[0].end))
                marks.append(Mark(place + at, waiting.popleft()))
            yield ticks, place, marks
            place += len(ticks)


def _pieces(ticks: Ticks) -> Iterator[Ticks]:
    """Where products tell little there are more seconds than ticks: shorter parts of the stream then."""
    seconds = np.maximum.accumulate(ticks.time) // SECOND_NS
    most = max(1, STRETCH_ROWS // max(1, len(ticks.products)))
    first = 0
    while first < len(ticks):
        end = int(np.searchsorted(seconds, seconds[first] + most, side="right"))
        end = max(end, first + _LEAST_TICKS)
        yield ticks[first:end]
        first = end


def _finished(given: list[tuple[int, Pending]], dropped: dict[int, DroppedEvents]) -> list[Made]:
    made = []
    for lane, pending in given:
        done = pending.made()
        dropped[lane] = done.dropped
        made.append(done)
    return made


def _total(dropped: dict[int, DroppedEvents]) -> DroppedEvents:
    counts = dropped.values()
    return DroppedEvents(
        sum(one.late for one in counts),
        sum(one.duplicates for one in counts),
        sum(one.unplaced for one in counts),
        sum(one.invalid for one in counts),
    )


def _write(writer: FeatureFileWriter, made: list[Made]) -> None:
    """Writes the rows of a stretch in the order of the ticks that made them."""
    parts = [one for one in made if len(one.rows)]
    if len(parts) == 1:
        writer.write_table(parts[0].rows)
    elif parts:
        order = np.argsort(np.concatenate([one.places for one in parts]), kind="stable")
        table = pa.concat_tables([one.rows for one in parts]).unify_dictionaries().combine_chunks()
        writer.write_table(table.take(pa.array(order)))
