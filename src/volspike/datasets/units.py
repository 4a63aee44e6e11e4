"""A unit of bulk work: the ticks of some products in one stretch of the stream, and the rows that they make.

A unit knows nothing of where it runs. It takes up the state of the unit before it, or begins with a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volspike.datasets.facts import feature_schema
from volspike.datasets.writing import record_batch
from volspike.features import Every, FeatureEngine, FeatureRows, FeatureSet, Handled
from volspike.market import Gap, Profile, Ticks


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
    handled: Handled


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
    return Made(table, np.concatenate(places), engine.handled()), engine.snapshot()


def _rows(engine: FeatureEngine, work: Work) -> Iterator[tuple[int, FeatureRows]]:
    """The rows in parts, each with the index of the tick from which its own indices count."""
    done = 0
    for mark in work.marks:
        at = int(np.searchsorted(work.places, mark.place))
        yield from ((done, rows) for rows in engine.run(work.ticks[done:at]))
        engine.mark_gap(mark.gap)
        done = at
    yield from ((done, rows) for rows in engine.run(work.ticks[done:]))
