"""How the stream is cut into units: by product, and where a product has a lane of its own, by session.

A *lane* is one product, or several where there are many. Its units follow each other, each from the state that the one
before it left; so a cut may be anywhere. Where a session begins, what outlives the session before it is all that is
needed: a *scout*, an engine of the core features, is there long before the units are, and the new session's unit
does not wait for the older ones. With a leader every row may need another product's state: then there is one lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from msgspec.structs import replace as replaced
from numpy.typing import NDArray

from volspike.datasets.units import Mark, Recipe, Work
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.features.kernel import SESSION_GAP_NS
from volspike.market import Ticks


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
