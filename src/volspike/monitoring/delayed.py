"""What really happened after each second, told live once the minute is over: the labels of replay, only later."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isnan

import msgspec
import numpy as np

from volspike.features import Every
from volspike.labels import HORIZON_S, crosses, future_volatility
from volspike.market import SECOND_NS

SESSION_GAP_S = 300
MOST_LOSSES = 64
"""Losses of a product kept apart; of more, the oldest are taken as one, which voids labels and makes none."""


class DelayedLabel(msgspec.Struct, frozen=True, gc=False):
    """The future volatility of a product's rows in a second (Unix seconds)."""

    product: str
    second: int
    future_volatility: float


class _Course:
    """The closing prices of one product's session, as far as a label still needs them.

    ``finished`` is the newest second that is over; ``closes`` ends with its price.
    """

    def __init__(self, second: int, session: int, price: float, horizon: int) -> None:
        self.session = session
        self.second = second
        self.price = price
        self.finished = second - 1
        self.newest = 0
        self._horizon = horizon
        self._closes: deque[float] = deque(maxlen=horizon + 1)
        self._pending: deque[int] = deque([second])

    def begin(self, second: int) -> None:
        """A later second has a row."""
        self.second = second
        self._pending.append(second)

    def finish(self, last: int) -> list[tuple[int, float]]:
        """All seconds to ``last`` are over, at the present price; returns those whose future is thereby known."""
        known = self._known(last)
        # what lies beyond a full deque is pushed out again
        self._closes.extend([self.price] * min(last - self.finished, self._horizon + 1))
        self.finished = max(last, self.finished)
        return known

    def _known(self, last: int) -> list[tuple[int, float]]:
        ready = []
        while self._pending and self._pending[0] + self._horizon <= last:
            ready.append(self._pending.popleft())
        if not ready:
            return []
        first = ready[0]
        held = list(self._closes)[len(self._closes) - (self.finished - first + 1) :] if first <= self.finished else []
        length = ready[-1] + self._horizon + 1 - first
        grid = np.array(held + [self.price] * (length - len(held)))
        volatility = future_volatility(grid[:length], self._horizon)
        return [(second, float(volatility[second - first])) for second in ready]


class DelayedLabels:
    """Future volatilities as their time comes; equal to those of ``SecondGrid`` over the same rows and losses.

    A second that a session's end, a loss or the end of the rows keeps from being known is never told. Holds about
    two minutes of prices a product. A loss must be told before the rows that follow it: a label once told stands.

    Args:
        horizon: how many seconds are looked ahead.
        every: whether rows come at ticks, or one at the end of each second.
        gap_s: rows further apart than this belong to different sessions.
    """

    def __init__(self, horizon: int = HORIZON_S, *, every: Every = Every.TICK, gap_s: float = SESSION_GAP_S) -> None:
        self._horizon = horizon
        self._is_per_second = every is Every.SECOND
        self._gap_ns = round(gap_s * SECOND_NS)
        self._courses: dict[str, _Course] = {}
        self._losses: dict[str, list[tuple[int, int]]] = {}

    def add(self, product: str, time_ns: int, price: float, session_id: int) -> list[DelayedLabel]:
        """Takes the next row of a product and returns the labels that it completes, mostly none or one.

        Rows come in time order, as the engine gives them; one that lies before the newest begins a new session.
        """
        second = time_ns // SECOND_NS - (1 if self._is_per_second else 0)
        course = self._courses.get(product)
        if course is None or course.session != session_id or not 0 <= time_ns - course.newest <= self._gap_ns:
            course = self._courses[product] = _Course(second, session_id, price, self._horizon)
            known = []
        elif second > course.second:
            known = course.finish(second - 1)
            course.begin(second)
        else:
            known = []
        course.newest, course.price = time_ns, price
        if self._is_per_second and second > course.finished:
            known += course.finish(second)
        return self._whole(product, known) if known else []

    def gap(self, start_ns: int, end_ns: int, products: Sequence[str]) -> None:
        """Something of these products was lost between the two instants: no label reaches into it."""
        if end_ns <= start_ns - self._horizon * SECOND_NS:
            return
        for product in products:
            self._losses[product] = _merged([*self._losses.get(product, ()), (start_ns, end_ns)], self._horizon)

    def _whole(self, product: str, known: list[tuple[int, float]]) -> list[DelayedLabel]:
        losses = self._losses.get(product)
        if losses:
            over = (known[0][0] + 1) * SECOND_NS
            # what ended before the oldest of these can void no later one either
            losses = self._losses[product] = [loss for loss in losses if loss[1] > over]
            second = np.array([second for second, _ in known])
            lost = np.zeros(len(second), bool)
            for start, end in losses:
                lost |= crosses(second, start, end, self._horizon)
            known = [one for one, is_lost in zip(known, lost.tolist(), strict=True) if not is_lost]
        return [DelayedLabel(product, second, value) for second, value in known if not isnan(value)]


def _merged(losses: list[tuple[int, int]], horizon: int) -> list[tuple[int, int]]:
    """The same losses, those less than the horizon apart as one: no second's future fits between them."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(losses):
        is_near = bool(merged) and start - horizon * SECOND_NS < merged[-1][1]
        if is_near:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    if len(merged) > MOST_LOSSES:
        merged[:2] = [(merged[0][0], merged[1][1])]
    return merged
