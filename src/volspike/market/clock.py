"""Impossible times and clock steps, from the exchange's times and ours.

The difference of a tick's ``time`` and ``received`` hardly changes: latency makes it smaller, by less than a second as
a rule, and nothing makes it larger. So a tick whose difference is larger than that of its neighbours, or whose time is
far before theirs, has an impossible time. When all ticks differ together, a clock was set to another time.

``TimeCheck`` decides tick by tick, as a feed needs it. ``isolated_times`` decides with the later ticks of a file at
hand, and needs no time of receipt.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.market.time import SECOND_NS, format_time

AHEAD_NS: Final = 5 * SECOND_NS
"""The furthest that a time may be ahead of its neighbours: the later ones would be late for as long."""

BEHIND_NS: Final = 60 * SECOND_NS
"""The furthest that a time may be behind its neighbours, and ahead of them in a market that is not in real time."""

FIRST_BEHIND_NS: Final = 86_400 * SECOND_NS
"""The furthest that a product's first time may be behind: a first ticker has the time of the last trade."""

STEP_TICKS: Final = 10
"""Ticks in a row that must agree on another time before it is a clock step."""

_NEAR_NS = SECOND_NS
_REAL_TIME_NS = 2 * SECOND_NS
_AGREE_NS = 10 * SECOND_NS
_WINDOW_NS = 60 * SECOND_NS
_UNKNOWN = -(2**63)


class _Run:
    """Impossible times in a row that agree with each other."""

    __slots__ = ("count", "offset", "received")

    def __init__(self) -> None:
        self.count = self.offset = self.received = 0

    def add(self, offset: int, received: int) -> int:
        """The number of ticks so far; those received together are one."""
        if self.count and abs(offset - self.offset) <= _AGREE_NS:
            self.count += received != self.received
        else:
            self.count = 1
        self.offset, self.received = offset, received
        return self.count


class _ProductTimes:
    __slots__ = ("newest", "run", "shift")

    def __init__(self) -> None:
        self.newest = _UNKNOWN
        self.shift = 0
        self.run = _Run()


class TimeCheck:
    """Finds ticks with an impossible time among those of a feed, in the order of arrival; constant time per tick.

    A time is impossible if it is more than ``AHEAD_NS`` ahead or ``BEHIND_NS`` behind, both with respect to the
    product's newest time and to the largest difference to our clock of the last one to two minutes. A simulated market
    may be faster than our clock: times that are not near it may be ``BEHIND_NS`` ahead. A time within a second of our
    clock is always possible, so that a wrong first tick does no harm.

    ``STEP_TICKS`` impossible times in a row that agree with each other, received at different times, are a clock step:
    of the feed, if no possible one of another product came between, otherwise of the product. So no product is rejected
    for longer.
    """

    def __init__(self) -> None:
        self._products: dict[str, _ProductTimes] = {}
        self._base = self._current = self._previous = self._least = self._most = _UNKNOWN
        self._window_start = self._window_end = 0
        self._is_settled = False
        self._suspected: set[str] = set()
        self._run = _Run()
        self.step_ns = 0
        """By how much the last tick showed that a clock was set forward (exchange) or back (ours); 0 for no step."""
        self.stepped_product = ""
        """The product whose times have changed with that step; empty for all."""

    def begin_connection(self) -> None:
        """Forget the difference of the clocks where it is not that of the present, as of a market in fast motion."""
        if abs(self._base) > _REAL_TIME_NS:
            self._base = _UNKNOWN
            self._is_settled = False

    def set_our_clock(self, by_ns: int) -> None:
        """Our clock was set forward (or back, if negative) by this much, as is known from another clock."""
        if self._base != _UNKNOWN:
            self._rebase(self._base - by_ns, self._window_start + by_ns)

    def fault(self, product: str, time: int, received: int) -> str:
        """The reason why the time of a tick is impossible; empty if it is possible. Times are in ns UTC.

        >>> check = TimeCheck()
        >>> [check.fault("BTC-USD", time * 10**9, 10**11) for time in (100, 399, 101)]
        ['', 'the time 1970-01-01T00:06:39Z is impossible: 299 s ahead of our clock and its neighbours', '']
        """
        times = self._products.get(product)
        if times is None:
            times = self._products[product] = _ProductTimes()
        elif (
            self._is_settled
            and self._window_start <= received < self._window_end
            and self._least <= time - received - times.shift <= self._current
        ):  # nothing changes but the newest time
            times.newest = max(time, times.newest)
            return ""
        return self._evaluate(times, product, time, received)

    def _evaluate(self, times: _ProductTimes, product: str, time: int, received: int) -> str:
        self.step_ns = 0
        offset = time - received - times.shift
        base, newest = self._base, times.newest
        if base == _UNKNOWN:
            self._rebase(offset, received)
        elif offset > self._most:
            if not -_NEAR_NS <= offset <= _NEAR_NS and time > newest + self._most - base:
                return self._reject(times, product, time, offset, received)
        elif offset < base - BEHIND_NS and (
            time < newest - BEHIND_NS if newest != _UNKNOWN else offset < base - FIRST_BEHIND_NS
        ):
            if not -_NEAR_NS <= offset <= _NEAR_NS:
                return self._reject(times, product, time, offset, received)
            self._step(times, "", offset, received)
        if not self._window_start <= received < self._window_end:
            self._begin_window(received)
            self._previous, self._current = self._current, offset
            self._set_base(max(self._previous, offset))
        elif offset > self._current:
            self._current = offset
            if offset > base:
                self._set_base(offset)
        times.newest = max(times.newest, time)
        times.run.count = self._run.count = 0
        self._suspected.discard(product)
        self._is_settled = not self._suspected and not self.step_ns
        return ""

    def _reject(self, times: _ProductTimes, product: str, time: int, offset: int, received: int) -> str:
        """The reason, unless enough ticks agree: then it is a step, and the time is possible."""
        self._is_settled = False
        self._suspected.add(product)
        of_product = times.run.add(offset, received)
        of_all = self._run.add(offset, received)
        if of_all >= STEP_TICKS:
            self._step(times, "", offset, received)
        elif of_product >= STEP_TICKS:
            self._step(times, product, offset, received)
        else:
            seconds = abs(offset - self._base) / SECOND_NS
            side = "ahead of" if offset > self._base else "behind"
            return f"the time {format_time(time)} is impossible: {seconds:.3g} s {side} our clock and its neighbours"
        times.newest = time
        return ""

    def _step(self, times: _ProductTimes, product: str, offset: int, received: int) -> None:
        self.step_ns, self.stepped_product = offset - self._base, product
        times.run.count = self._run.count = 0
        if product:
            times.shift += self.step_ns
            return
        for each in self._products.values():
            each.newest = _UNKNOWN
        self._rebase(offset, received)

    def _rebase(self, offset: int, received: int) -> None:
        self._current = self._previous = offset
        self._begin_window(received)
        self._set_base(offset)

    def _begin_window(self, received: int) -> None:
        self._window_start, self._window_end = received, received + _WINDOW_NS

    def _set_base(self, base: int) -> None:
        self._base = base
        self._least = base - BEHIND_NS
        self._most = base + (AHEAD_NS if abs(base) <= _REAL_TIME_NS else BEHIND_NS)


def isolated_times(time: NDArray[np.int64], *, most: int = STEP_TICKS - 1) -> NDArray[np.bool_]:
    """(n,) whether each time of one product, in the order of arrival, is impossible next to its neighbours.

    These are runs of up to ``most`` times that are more than ``AHEAD_NS`` ahead, or more than ``BEHIND_NS`` behind, of
    the times before the run and of the time that follows it. Longer runs are clock steps. What the last run is, later
    times would show; the first is isolated if it is ahead of a longer one.

    >>> isolated_times(np.array([1, 2, 301, 3, 4]) * 10**9).tolist()
    [False, False, True, False, False]
    """
    is_isolated = np.zeros(len(time), bool)
    cuts = np.flatnonzero((np.diff(time) > AHEAD_NS) | (np.diff(time) < -AHEAD_NS)) + 1
    if not len(cuts):
        return is_isolated
    starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(time)]
    newest = _UNKNOWN
    for place, (start, end) in enumerate(zip(starts[:-1], ends[:-1], strict=True)):
        first, last, following = int(time[start]), int(time[end - 1]), int(time[end])
        is_ahead = first > max(following, newest) + AHEAD_NS and following >= newest - BEHIND_NS
        is_behind = last < min(newest, following) - BEHIND_NS
        if place == 0 and ends[1] - end <= end - start:
            is_ahead = False
        if end - start <= most and (is_ahead or is_behind):
            is_isolated[start:end] = True
        else:
            newest = last if is_behind else max(newest, last)
    return is_isolated
