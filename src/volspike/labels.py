"""What a row is asked to foresee: the volatility of the next 60 seconds, and whether that is a spike.

A label exists only where the session goes on long enough to tell it. What comes later never changes one that exists:
it needs the price at the end of finished seconds alone.

What really happened after each second, told live once the minute is over: the labels of replay, only later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import isnan
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from volspike.errors import NotEnoughData
from volspike.features import Every
from volspike.market import SECOND_NS

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

HORIZON_S: Final = 60
DEFAULT_PERCENTILE: Final = 90.0

_BLOCK = 8192
"""Seconds whose 60 returns are looked at together: bounds the memory, changes no result."""


def future_volatility(price: Floats, horizon: int = HORIZON_S) -> Floats:
    """Standard deviation (ddof 0) of the ``horizon`` one-second log returns after each second.

    Args:
        price: (n,) the price at the end of every finished second of one session, silent seconds carried.

    Returns:
        (n,), NaN for the last ``horizon`` seconds, whose future is not over.
    """
    volatility = np.full(len(price), np.nan)
    if len(price) <= horizon:
        return volatility
    returns = np.log1p(np.diff(price) / price[:-1])
    windows = sliding_window_view(returns, horizon)
    for start in range(0, len(windows), _BLOCK):
        block = windows[start : start + _BLOCK]
        volatility[start : start + len(block)] = block.std(axis=1)
    return volatility


def spike_threshold(
    volatility: Floats, percentile: float = DEFAULT_PERCENTILE, weights: Integers | None = None
) -> float:
    """τ: the smallest future volatility that at least ``percentile`` % of the given rows do not exceed.

    Give it training rows only: a percentile over rows that come later has looked ahead.

    Args:
        volatility: (n,) future volatilities; NaN is left out.
        percentile: between 0 and 100.
        weights: (n,) how many rows each value stands for.

    Raises:
        NotEnoughData: no label, or a market that stood still: then every row would be a spike.
    """
    known = np.isfinite(volatility)
    if not known.any():
        raise NotEnoughData("no row's next 60 seconds are known: record for longer than 6 minutes without a break")
    counts = None if weights is None else weights[known]
    tau = float(np.quantile(volatility[known], percentile / 100.0, method="inverted_cdf", weights=counts))
    if tau <= 0.0:
        raise NotEnoughData(
            f"the {percentile:g}th percentile of future volatility is 0: the market stood still, "
            "so nothing would tell a spike from calm; raise the percentile or record a livelier market"
        )
    return tau


def spikes(volatility: Floats, tau: float) -> NDArray[np.int8]:
    """1 where the future volatility is at least τ, else 0; where it is unknown that is 0 too, so select first."""
    return (volatility >= tau).astype(np.int8)


def crosses(second: Integers, start: int, end: int, horizon: int = HORIZON_S) -> NDArray[np.bool_]:
    """Whether a gap from ``start`` to ``end`` (ns) lies in the ``horizon`` seconds that follow each second's end."""
    over = (second + 1) * SECOND_NS
    return (start < over + horizon * SECOND_NS) & (end > over)


class SecondGrid:
    """The closing prices of a product's seconds, gathered from its rows part by part, cut into sessions.

    Holds one number a second, whatever the number of rows.

    Args:
        gap_ns: rows further apart than this belong to different sessions.
        last_is_finished: whether a session's last second counts as over (rows per second: yes; rows per tick: no).
        losses: start and end (ns) of stretches in which something was lost: no label reaches into one.
    """

    def __init__(self, gap_ns: int, last_is_finished: bool, losses: Sequence[tuple[int, int]] = ()) -> None:
        self._losses = losses
        self._gap_ns = gap_ns
        self._last_is_finished = last_is_finished
        self._seconds: list[Integers] = []
        self._prices: list[Floats] = []
        self._counts: list[Integers] = []
        self._breaks: list[NDArray[np.bool_]] = []
        self._newest: tuple[int, int, int] | None = None

    def add(self, timestamp: Integers, second: Integers, session: Integers, price: Floats) -> None:
        """The next rows in time order; all arrays are (n,)."""
        if len(timestamp) == 0:
            return
        previous = (timestamp[0], second[0], session[0]) if self._newest is None else self._newest
        apart = np.diff(timestamp, prepend=previous[0]) > self._gap_ns
        begins = apart | (np.diff(session, prepend=previous[2]) != 0)
        last = np.append((np.diff(second) != 0) | begins[1:], True)
        starts = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
        self._seconds.append(second[last])
        self._prices.append(price[last])
        self._counts.append(np.diff(np.append(starts, len(second))))
        self._breaks.append(np.logical_or.reduceat(begins, starts))
        self._newest = (int(timestamp[-1]), int(second[-1]), int(session[-1]))

    def labels(self, horizon: int = HORIZON_S) -> Iterator[tuple[Integers, Floats, Integers]]:
        """Per session, in order: its seconds, their future volatility (NaN where unknown) and their numbers of rows.

        Only seconds that have rows are told.
        """
        if not self._seconds:
            return
        second, count = np.concatenate(self._seconds), np.concatenate(self._counts)
        price = np.concatenate(self._prices)
        begins = np.flatnonzero(np.concatenate(self._breaks))
        for part in np.split(np.arange(len(second)), begins):
            if len(part):
                yield self._session(second[part], price[part], count[part], horizon)

    def _session(
        self, second: Integers, price: Floats, count: Integers, horizon: int
    ) -> tuple[Integers, Floats, Integers]:
        # a second may stand twice where a part ended within it: the later price is the closing one
        closing = np.append(np.diff(second) != 0, True)
        starts = np.concatenate(([0], np.flatnonzero(closing)[:-1] + 1))
        second, price, count = second[closing], price[closing], np.add.reduceat(count, starts)
        every = np.arange(second[0], second[-1] + 1)
        grid = price[np.searchsorted(second, every, side="right") - 1]
        volatility = np.full(len(every), np.nan)
        finished = len(grid) if self._last_is_finished else len(grid) - 1
        volatility[:finished] = future_volatility(grid[:finished], horizon)
        for start, end in self._losses:
            volatility[crosses(every, start, end, horizon)] = np.nan
        return second, volatility[second - second[0]], count


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
