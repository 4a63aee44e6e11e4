"""Units given out to an engine and their rows written in the order of one pass, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from volspike.datasets.ahead import Readers
from volspike.datasets.lanes import Lanes
from volspike.datasets.units import Made, Mark, Recipe, Work
from volspike.datasets.writing import FeatureFileWriter
from volspike.features import Every, Handled
from volspike.market import SECOND_NS, Gap, Ticks

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
) -> Iterator[Handled]:
    """Writes the rows of the stream; yields after each stretch, and last of all, what became of its events."""
    lanes, states = Lanes(recipe, 4 * engine.workers), dict[int, Any]()
    handled: dict[int, Handled] = {}
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
                rows = _finished(under_way.popleft(), handled)
                written.result()
                written = writing.submit(_write, writer, rows)
                yield _total(handled)
        while under_way:
            rows = _finished(under_way.popleft(), handled)
            written.result()
            written = writing.submit(_write, writer, rows)
        written.result()
    yield _total(handled)


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


def _finished(given: list[tuple[int, Pending]], handled: dict[int, Handled]) -> list[Made]:
    made = []
    for lane, pending in given:
        done = pending.made()
        handled[lane] = done.handled
        made.append(done)
    return made


def _total(handled: dict[int, Handled]) -> Handled:
    counts = handled.values()
    return Handled(
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
