"""Figures of the ticks of one file: order, trade ids that are missing or repeated, and ticks per second."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.market import MISSING_ID, SECOND_NS, Cause, Gap, Ticks
from volspike.market.clock import BEHIND_NS

Integers = NDArray[np.int64]

MOST_HOLES: Final = 20_000
"""Holes between trade ids that are remembered; more of them mean ids that are not consecutive."""

_CONSECUTIVE_SHARE: Final = 0.99
_MOST_RESTARTS: Final = 1_000
_NEWEST_FIRST_SHARE: Final = 0.99
_OPEN_SECONDS: Final = 120
_LONGEST_CARRY: Final = 100_000


class TickOrder:
    """The order of times of receipt in a file: ascending, newest first, or mixed."""

    def __init__(self) -> None:
        self._back = self._forward = 0
        self._last: int | None = None
        self._furthest_back = 0
        self._reached = -(2**63)

    def add(self, ticks: Ticks) -> None:
        """Adds the next ticks of the file."""
        if len(ticks) == 0:
            return
        times = ticks.received
        known = times if self._last is None else np.concatenate([[self._last], times])
        step = np.diff(known)
        back = int((step < 0).sum())
        self._back += back
        self._forward += int((step > 0).sum())
        if back or int(times[0]) < self._reached:
            reached = np.maximum.accumulate(np.concatenate([[self._reached], times]))
            self._furthest_back = max(self._furthest_back, int((reached[1:] - times).max()))
        self._reached = max(self._reached, int(times.max()))
        self._last = int(times[-1])

    @property
    def is_newest_first(self) -> bool:
        """Whether the times go back nearly everywhere."""
        return self._back >= _NEWEST_FIRST_SHARE * max(1, self._back + self._forward)

    @property
    def is_ascending(self) -> bool:
        """Whether no time is more than a minute before an earlier one: the order in which a venue reports is kept."""
        return self._furthest_back <= BEHIND_NS


def without_duplicates(ticks: Ticks, before: Ticks | None) -> tuple[Ticks, int]:
    """The ticks without those that repeat an earlier one of ``before`` or ``ticks`` in time, id, price, size and side.

    Returns:
        The ticks, and the number of duplicates. Ticks without an id are kept, since trades may be equal.
    """
    ids = ticks.trade_id
    if len(ids) == 0:
        return ticks, 0
    is_ascending = bool((np.diff(ids) > 0).all())
    newest = -1 if before is None or len(before) == 0 else int(before.trade_id.max())
    if (is_ascending and int(ids[0]) > newest) or not (ids != MISSING_ID).any():
        return ticks, 0
    joined = ticks if before is None else Ticks.join([before, ticks])
    keys = (joined.last_size, joined.price, joined.side, joined.product, joined.time, joined.trade_id)
    order = np.lexsort(keys)
    is_same = np.ones(len(order) - 1, bool)
    for key in keys:
        ordered = key[order]
        is_same &= (ordered[1:] == ordered[:-1]) | ((ordered[1:] != ordered[1:]) & (ordered[:-1] != ordered[:-1]))
    is_same &= joined.trade_id[order][1:] != MISSING_ID
    is_duplicate = np.zeros(len(order), bool)
    is_duplicate[order[1:][is_same]] = True
    is_duplicate = is_duplicate[len(joined) - len(ticks) :]
    count = int(is_duplicate.sum())
    return (ticks[~is_duplicate], count) if count else (ticks, 0)


def latest_ticks(ticks: Ticks) -> Ticks:
    """The ticks at the end that an overlap with the next chunk may repeat."""
    return ticks[max(0, len(ticks) - _LONGEST_CARRY) :]


@dataclass(slots=True)
class _Hole:
    """Missing ids between two trades, with the times of both."""

    first: int
    last: int
    start: int
    end: int


@dataclass(slots=True)
class TradeIdCheck:
    """The missing trade ids of one product.

    ``is_consecutive`` states whether the venue numbers the trades one by one; if it is None, the ids decide.
    """

    product_id: str
    is_consecutive: bool | None = None
    first: int = MISSING_ID
    last: int = MISSING_ID
    ids: int = 0
    restarts: int = 0
    _steps: int = 0
    _last_time: int = 0
    _is_given_up: bool = False
    _holes: list[_Hole] = field(default_factory=list)

    def add(self, ids: Integers, times: Integers) -> None:
        """Adds the ids of the next trades with their times of receipt; missing ids are skipped."""
        is_present = ids != MISSING_ID
        if not is_present.all():
            ids, times = ids[is_present], times[is_present]
        if len(ids) == 0:
            return
        if self.ids == 0:
            self.first, self.last, self._last_time = int(ids[0]), int(ids[0]) - 1, int(times[0])
        self.ids += len(ids)
        before = np.concatenate([[self._last_time], times[:-1]])
        self._last_time = int(times[-1])
        start = 0
        while start < len(ids) and not self._is_given_up:
            start += self._add_run(ids[start:], before[start:], times[start:])

    def _add_run(self, ids: Integers, before: Integers, times: Integers) -> int:
        """Adds ids until they begin again from a lower one; returns their number."""
        highest = np.maximum.accumulate(np.concatenate([[self.last], ids]))
        places = np.flatnonzero(ids != highest[:-1] + 1)
        if len(places) > MOST_HOLES:
            self._is_given_up = True
            return len(ids)
        for place in places.tolist():
            number, reached = int(ids[place]), int(highest[place])
            if number > reached:
                self._holes.append(_Hole(reached + 1, number - 1, int(before[place]), int(times[place])))
                self._is_given_up = len(self._holes) > MOST_HOLES
            elif not self._fill(number) and place + 1 < len(ids) and int(ids[place + 1]) == number + 1:
                self._steps += place - int((places < place).sum())
                self.restarts += 1
                self._is_given_up = self.restarts > _MOST_RESTARTS
                self.last = number
                return place + 1
        self._steps += len(ids) - len(places)
        self.last = int(highest[-1])
        return len(ids)

    def _fill(self, number: int) -> bool:
        """Removes a late id from the holes; False if it is in none."""
        for place in range(len(self._holes) - 1, -1, -1):
            hole = self._holes[place]
            if hole.first <= number <= hole.last:
                parts = [
                    _Hole(hole.first, number - 1, hole.start, hole.end),
                    _Hole(number + 1, hole.last, hole.start, hole.end),
                ]
                self._holes[place : place + 1] = [part for part in parts if part.first <= part.last]
                return True
        return False

    @property
    def is_verifiable(self) -> bool:
        """Whether a missing trade would be noticed."""
        if self.ids < 2 or self._is_given_up:
            return False
        stated = self.is_consecutive
        return self._steps >= _CONSECUTIVE_SHARE * self.ids if stated is None else stated

    @property
    def missing(self) -> int:
        """The number of missing ids; 0 if they are not verifiable."""
        return sum(hole.last - hole.first + 1 for hole in self._holes) if self.is_verifiable else 0

    def gaps(self) -> list[Gap]:
        """The missing ids as gaps of the ledger; none if they are not verifiable."""
        if not self.is_verifiable:
            return []
        return [
            Gap(
                start=min(hole.start, hole.end),
                end=max(hole.start, hole.end),
                products=(self.product_id,),
                cause=Cause.HISTORY,
                lost=hole.last - hole.first + 1,
                detail=f"trade ids {hole.first} to {hole.last} are missing"
                if hole.last > hole.first
                else f"trade id {hole.first} is missing",
            )
            for hole in self._holes
        ]


class TickRate:
    """Ticks per second of one product, over every second from its first to its last tick."""

    def __init__(self) -> None:
        self.ticks = 0
        self.first = self.last = 0
        self._open: Counter[int] = Counter()
        self._seconds: Counter[int] = Counter()

    def add(self, times: Integers) -> None:
        """Adds ticks, whose times (ns UTC) may go back by up to two minutes."""
        if len(times) == 0:
            return
        least, most = int(times.min()), int(times.max())
        self.first, self.last = (least, most) if self.ticks == 0 else (min(self.first, least), max(self.last, most))
        self.ticks += len(times)
        seconds, counts = np.unique(times // SECOND_NS, return_counts=True)
        settled = int(seconds[-1]) - _OPEN_SECONDS
        is_old = seconds < settled
        for second, count in zip(seconds[~is_old].tolist(), counts[~is_old].tolist(), strict=True):
            self._open[second] += count
        old_seconds, old_counts = seconds[is_old], counts[is_old].copy()
        for second in [second for second in self._open if second < settled]:
            place = int(np.searchsorted(old_seconds, second))
            count = self._open.pop(second)
            if place < len(old_seconds) and int(old_seconds[place]) == second:
                old_counts[place] += count
            else:
                self._seconds[count] += 1
        values, numbers = np.unique(old_counts, return_counts=True)
        self._seconds.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))

    @property
    def seconds(self) -> int:
        """The seconds from the first to the last tick, both included."""
        return 0 if self.ticks == 0 else self.last // SECOND_NS - self.first // SECOND_NS + 1

    @property
    def active_share(self) -> float:
        """The share of the seconds that have a tick."""
        return (self._seconds.total() + len(self._open)) / max(1, self.seconds)

    @property
    def median(self) -> float:
        """The median number of ticks in a second; 0 if most seconds have none."""
        histogram = self._seconds + Counter(self._open.values())
        histogram[0] = max(0, self.seconds - histogram.total())
        half = self.seconds / 2
        reached = 0
        values = sorted(value for value, number in histogram.items() if number)
        for place, value in enumerate(values):
            reached += histogram[value]
            if reached > half:
                return float(value)
            if reached == half:
                return (value + values[place + 1]) / 2
        return 0.0
