"""The label of a row: the volatility of the seconds that follow it, and whether that is a spike.

The label rule, for recorded rows (``SecondGrid``) and live ones (``DelayedLabels``) alike:

1. A session's prices are put on a one-second grid: P(k) is the last price at or before the end of second k, carried
   through silent seconds. The return of second k is r(k) = ln(P(k) / P(k-1)).
2. The future volatility of a row in second s is the standard deviation (ddof 0) of r(s+1) … r(s+h), where h is the
   horizon, 60 s by default (``future_volatility``). A row at the end of second k is a row in second k.
3. It exists only where the session has finished those h seconds and no gap lies in them (``is_gap_in_horizon``).
   Rows that arrive later never change a label that exists.
4. A row is a spike if its future volatility is at least the row's threshold τ (``is_spike``). τ uses the past only. A
   ``SpikeDefinition`` says what it is: a multiple of the trailing hour's volatility, a trailing percentile of outcomes
   (``LevelThreshold``), a number, or a percentile of the training rows (``spike_threshold``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, isnan, sqrt
from typing import Final, Self, TypeAlias, overload

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from volspike.errors import NotEnoughData, UsageError
from volspike.market import SECOND_NS

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

HORIZON_S: Final = 60
LONGEST_HORIZON_S: Final = 3600
MINUTE_S: Final = 60
SESSION_GAP_S: Final = 300
"""Rows further apart than this belong to different sessions."""

DEFAULT_PERCENTILE: Final = 90.0
MAX_GAPS: Final = 64
"""The most gaps of a product that are kept apart. Beyond it the two oldest become one, which can only remove labels."""

_BLOCK: Final = 8192
"""Seconds whose windows are in memory together; it changes no result."""


def future_volatility(price: Floats, horizon: int = HORIZON_S) -> Floats:
    """Standard deviation (ddof 0) of the ``horizon`` one-second log returns after each second.

    Args:
        price: (n,) prices at the end of all finished seconds of one session, silent seconds included.
        horizon: in seconds.

    Returns:
        (n,) NaN for the last ``horizon`` seconds, whose future is not finished.
    """
    volatility = np.full(len(price), np.nan)
    if len(price) <= horizon:
        return volatility
    returns = np.log1p((price[1:] - price[:-1]) / price[:-1])
    if len(returns) == horizon:  # a live second: the same sums as those of ``std`` below, without its overhead
        deviation = returns - np.add.reduce(returns) / horizon
        volatility[0] = sqrt(np.add.reduce(deviation * deviation) / horizon)
        return volatility
    windows = sliding_window_view(returns, horizon)
    for start in range(0, len(windows), _BLOCK):
        block = windows[start : start + _BLOCK]
        volatility[start : start + len(block)] = block.std(axis=1)
    return volatility


def is_gap_in_horizon(second: Integers, start_ns: int, end_ns: int, horizon: int = HORIZON_S) -> NDArray[np.bool_]:
    """Whether the gap from ``start_ns`` to ``end_ns`` lies in the ``horizon`` seconds after each second of (n,).

    A gap that ends exactly where the horizon begins, or begins exactly where it ends, does not.
    """
    horizon_start = (second + 1) * SECOND_NS
    return (start_ns < horizon_start + horizon * SECOND_NS) & (end_ns > horizon_start)


@overload
def is_spike(volatility: float, tau: float) -> bool: ...
@overload
def is_spike(volatility: Floats, tau: float | Floats) -> NDArray[np.bool_]: ...
def is_spike(volatility: float | Floats, tau: float | Floats) -> bool | NDArray[np.bool_]:
    """Whether a future volatility, or each of an array, is at least τ; if either is unknown (NaN), it is not.

    >>> is_spike(0.0002, tau=0.0002)
    True
    """
    return volatility >= tau


def spikes(volatility: Floats, tau: float | Floats) -> NDArray[np.int8]:
    """(n,) 1 for a spike, otherwise 0. An unknown volatility or τ gives 0 as well, so select the known ones first."""
    return is_spike(volatility, tau).astype(np.int8)


TAU: Final = "tau"
"""The name of the threshold τ as a column of rows and as an input of models."""

TRAILING_HOUR: Final = "realized_volatility_3600s"
"""The feature that ``jump`` is a multiple of. In a session shorter than an hour it covers the session so far."""


class SpikeKind(StrEnum):
    """The kinds of thresholds τ."""

    JUMP = "jump"
    """``value`` times the volatility of the trailing hour (``TRAILING_HOUR``)."""
    LEVEL = "level"
    """The percentile ``value`` of the outcomes known in the trailing 24 hours, updated every minute."""
    FIXED = "fixed"
    """The volatility ``value`` itself."""
    PERCENTILE = "percentile"
    """The percentile ``value`` of the training rows."""


_DEFAULT_VALUES: Final = {SpikeKind.JUMP: 2.0, SpikeKind.LEVEL: 90.0, SpikeKind.PERCENTILE: DEFAULT_PERCENTILE}


@dataclass(frozen=True, slots=True)
class SpikeDefinition:
    """How τ of a row is determined; written as ``jump:2``, ``level:90``, ``fixed:0.0003`` or ``percentile:90``."""

    kind: SpikeKind
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """The definition of a text; ``jump``, ``level`` and ``percentile`` alone have the values 2, 90 and 90.

        >>> str(SpikeDefinition.parse("jump"))
        'jump:2'

        Raises:
            UsageError: an unknown kind, or a value out of range.
        """
        name, _, number = text.partition(":")
        try:
            kind = SpikeKind(name)
            value = float(number) if number else _DEFAULT_VALUES[kind]
        except (ValueError, KeyError):
            raise UsageError(
                f"no spike definition {text!r}; choose jump:2 (twice the volatility of the trailing hour), level:90 "
                "(percentile of the trailing 24 h), fixed:VALUE, or percentile:90 (of the training rows)"
            ) from None
        limit = 100.0 if kind in (SpikeKind.LEVEL, SpikeKind.PERCENTILE) else float("inf")
        if not (isfinite(value) and 0.0 < value < limit):
            below = " and below 100" if isfinite(limit) else ""
            raise UsageError(f"the value of {kind} must be above 0{below}, was {value:g}")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value:g}"

    @property
    def is_adaptive(self) -> bool:
        """Whether τ differs from row to row."""
        return self.kind in (SpikeKind.JUMP, SpikeKind.LEVEL)

    def describe(self) -> str:
        """The definition as a phrase, for users.

        >>> SpikeDefinition.parse("jump:2").describe()
        'at least 2 times the volatility of the trailing hour'
        """
        match self.kind:
            case SpikeKind.JUMP:
                return f"at least {self.value:g} times the volatility of the trailing hour"
            case SpikeKind.LEVEL:
                return f"at least the {self.value:g}th percentile of the outcomes of the trailing 24 hours"
            case SpikeKind.FIXED:
                return f"a volatility of at least {self.value:g} per second"
            case SpikeKind.PERCENTILE:
                return f"at least the {self.value:g}th percentile of the training rows"


@overload
def jump_threshold(trailing: float, multiple: float) -> float: ...
@overload
def jump_threshold(trailing: Floats, multiple: float) -> Floats: ...
def jump_threshold(trailing: float | Floats, multiple: float) -> float | Floats:
    """τ as a multiple of the volatility of the trailing hour, one or (n,); NaN where that is unknown or 0.

    >>> jump_threshold(0.0001, 2.0)
    0.0002
    """
    if isinstance(trailing, np.ndarray):
        return np.where(trailing > 0.0, multiple * trailing, np.nan)
    return multiple * trailing if trailing > 0.0 else float("nan")


DAY_S: Final = 86_400
LEVEL_OUTCOMES: Final = 3600
"""Outcomes that ``level`` needs, one per second: an hour. With fewer, τ is unknown."""


class LevelThreshold:
    """τ of one product as a percentile of the outcomes known in the trailing 24 hours, updated at every full minute.

    Within the minute that begins at second m, the outcomes are those of the seconds q with m − 86 400 ≤ q and
    q + horizon < m: all of them are known by m, live as well. They outlive sessions.

    Args:
        percentile: between 0 and 100.
        horizon: in seconds.
    """

    def __init__(self, percentile: float = 90.0, horizon: int = HORIZON_S) -> None:
        self._share = percentile / 100.0
        self._horizon = horizon
        self._second = np.empty(2 * DAY_S, np.int64)
        self._volatility = np.empty(2 * DAY_S)
        self._first = self._end = 0
        self._minute: int | None = None
        self._tau = float("nan")

    def add(self, second: int, volatility: float) -> None:
        """Adds the outcome of a second, later than all before; NaN is ignored."""
        if isnan(volatility):
            return
        if self._end == len(self._second):
            held = slice(max(self._first, self._end - DAY_S), self._end)
            count = held.stop - held.start
            self._second[:count], self._volatility[:count] = self._second[held], self._volatility[held]
            self._first, self._end = 0, count
        self._second[self._end], self._volatility[self._end] = second, volatility
        self._end += 1

    def tau(self, second: int) -> float:
        """τ of a row in ``second``, which is not before that of the last call; NaN with under an hour of outcomes.

        Add the outcomes of all seconds up to ``second`` − horizon − 1 first.
        """
        minute = second // MINUTE_S * MINUTE_S
        if minute != self._minute:
            self._minute = minute
            held = self._second[self._first : self._end]
            self._first += int(np.searchsorted(held, minute - DAY_S))
            last = self._first + int(np.searchsorted(self._second[self._first : self._end], minute - self._horizon))
            known = self._volatility[self._first : last]
            is_enough = len(known) >= LEVEL_OUTCOMES
            self._tau = float(np.quantile(known, self._share, method="inverted_cdf")) if is_enough else float("nan")
            if self._tau == 0.0:
                self._tau = float("nan")
        return self._tau

    def taus(self, second: Integers, volatility: Floats) -> Floats:
        """(n,) τ of rows in these ascending seconds, whose own future volatilities are added when they are known."""
        tau = np.empty(len(second))
        added = 0
        minute = second // MINUTE_S * MINUTE_S
        starts = _starts(np.append(np.diff(minute) != 0, True)) if len(second) else np.zeros(0, np.int64)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(second)], strict=True):
            known = int(np.searchsorted(second, minute[start] - self._horizon))
            for index in range(added, known):
                self.add(int(second[index]), float(volatility[index]))
            added = max(added, known)
            tau[start:end] = self.tau(int(second[start]))
        return tau


def spike_threshold(
    volatility: Floats, percentile: float = DEFAULT_PERCENTILE, weights: Integers | None = None
) -> float:
    """τ: the smallest future volatility that at least ``percentile`` % of the rows do not exceed.

    Pass training rows only: a percentile that includes later rows would use the future.

    Args:
        volatility: (n,) future volatilities; NaN is ignored.
        percentile: between 0 and 100.
        weights: (n,) the number of rows with each value; one row each by default.

    Raises:
        NotEnoughData: no label is known, or prices did not move, so that every row would be a spike.
    """
    known = np.isfinite(volatility)
    if not known.any():
        raise NotEnoughData(
            "no row's future is known: record for longer than 6 minutes plus the horizon, without a break"
        )
    counts = None if weights is None else weights[known]
    tau = float(np.quantile(volatility[known], percentile / 100.0, method="inverted_cdf", weights=counts))
    if tau <= 0.0:
        raise NotEnoughData(
            f"the {percentile:g}th percentile of future volatility is 0: the price hardly moved, so calm rows would be "
            "spikes; use a higher percentile or record a more active market"
        )
    return tau


class SecondGrid:
    """Labels of a product's recorded rows, which are added in parts.

    It keeps one price per second, whatever the number of rows.

    Args:
        gap_ns: rows further apart than this belong to different sessions.
        is_per_second: rows are at the end of each second, so that a session's last second is finished. For rows at
            ticks it is not.
        gaps: start and end (ns) of known data losses; no label extends into one.
    """

    def __init__(self, gap_ns: int, *, is_per_second: bool, gaps: Sequence[tuple[int, int]] = ()) -> None:
        self._gaps = gaps
        self._gap_ns = gap_ns
        self._is_per_second = is_per_second
        self._seconds: list[Integers] = []
        self._prices: list[Floats] = []
        self._counts: list[Integers] = []
        self._begins: list[NDArray[np.bool_]] = []
        self._newest: tuple[int, int, int] | None = None

    def add(self, timestamp: Integers, second: Integers, session: Integers, price: Floats) -> None:
        """Adds the next rows in time order; all arrays are (n,)."""
        if len(timestamp) == 0:
            return
        previous = (timestamp[0], second[0], session[0]) if self._newest is None else self._newest
        is_silence = np.diff(timestamp, prepend=previous[0]) > self._gap_ns
        begins = is_silence | (np.diff(session, prepend=previous[2]) != 0)
        is_closing = np.append((np.diff(second) != 0) | begins[1:], True)
        starts = _starts(is_closing)
        self._seconds.append(second[is_closing])
        self._prices.append(price[is_closing])
        self._counts.append(np.diff(np.append(starts, len(second))))
        self._begins.append(np.logical_or.reduceat(begins, starts))
        self._newest = (int(timestamp[-1]), int(second[-1]), int(session[-1]))

    def labels(self, horizon: int = HORIZON_S) -> Iterator[tuple[Integers, Floats, Integers]]:
        """Per session, in order: the seconds that have rows, their future volatility and their numbers of rows.

        The future volatility is NaN where it does not exist.
        """
        if not self._seconds:
            return
        second, count = np.concatenate(self._seconds), np.concatenate(self._counts)
        price = np.concatenate(self._prices)
        begins = np.flatnonzero(np.concatenate(self._begins))
        for part in np.split(np.arange(len(second)), begins):
            if len(part):
                yield self._session_labels(second[part], price[part], count[part], horizon)

    def _session_labels(
        self, second: Integers, price: Floats, count: Integers, horizon: int
    ) -> tuple[Integers, Floats, Integers]:
        # a second occurs twice if one call of add ended within it; the later price is its closing price
        is_closing = np.append(np.diff(second) != 0, True)
        count = np.add.reduceat(count, _starts(is_closing))
        second, price = second[is_closing], price[is_closing]
        every_second = np.arange(second[0], second[-1] + 1)
        grid = price[np.searchsorted(second, every_second, side="right") - 1]
        volatility = np.full(len(grid), np.nan)
        finished = len(grid) if self._is_per_second else len(grid) - 1
        volatility[:finished] = future_volatility(grid[:finished], horizon)
        for start, end in self._gaps:
            volatility[is_gap_in_horizon(every_second, start, end, horizon)] = np.nan
        return second, volatility[second - second[0]], count


def _starts(is_last: NDArray[np.bool_]) -> Integers:
    """The first position of each group, given which positions are the last of theirs."""
    return np.concatenate(([0], np.flatnonzero(is_last)[:-1] + 1))


class DelayedLabel(msgspec.Struct, frozen=True, gc=False):
    """The future volatility of a product's rows in a second (Unix seconds)."""

    product: str
    second: int
    future_volatility: float


class DelayedLabels:
    """Labels of live rows, each returned by the first row after its horizon.

    They equal those of ``SecondGrid`` over the same rows and gaps, bit for bit. A label that never exists, because
    the session ended or data was lost, is never returned. About two minutes of prices are kept per product.

    Args:
        horizon: in seconds.
        is_per_second: rows are at the end of each second rather than at ticks.
        gap_s: rows further apart than this belong to different sessions.
    """

    def __init__(self, horizon: int = HORIZON_S, *, is_per_second: bool = False, gap_s: float = SESSION_GAP_S) -> None:
        self._horizon = horizon
        self._is_per_second = is_per_second
        self._gap_ns = round(gap_s * SECOND_NS)
        self._sessions: dict[str, _Session] = {}
        self._gaps: dict[str, list[tuple[int, int]]] = {}

    def add(self, product: str, time_ns: int, price: float, session_id: int) -> list[DelayedLabel]:
        """Adds the next row of a product and returns the labels that it completes, usually none or one.

        Rows arrive in time order, as the engine emits them. A row before the newest starts a new session.
        """
        second = time_ns // SECOND_NS - (1 if self._is_per_second else 0)
        session = self._sessions.get(product)
        completed: list[tuple[int, float]] = []
        if session is None or session.id != session_id or not 0 <= time_ns - session.newest <= self._gap_ns:
            session = self._sessions[product] = _Session(second, session_id, price, self._horizon)
        elif second > session.second:
            completed = session.finish(second - 1)
            session.begin(second)
        session.newest, session.price = time_ns, price
        if self._is_per_second and second > session.finished:
            completed += session.finish(second)
        return self._without_gaps(product, completed) if completed else []

    def add_gap(self, start_ns: int, end_ns: int, products: Sequence[str]) -> None:
        """Adds a data loss of these products. Add it before the rows that follow it: returned labels are final."""
        if end_ns <= start_ns - self._horizon * SECOND_NS:
            return
        for product in products:
            self._gaps[product] = _merge_gaps([*self._gaps.get(product, ()), (start_ns, end_ns)], self._horizon)

    def _without_gaps(self, product: str, completed: list[tuple[int, float]]) -> list[DelayedLabel]:
        gaps = self._gaps.get(product)
        if gaps:
            horizon_start = (completed[0][0] + 1) * SECOND_NS
            # a gap that ended before the oldest of these horizons lies in no later one either
            gaps = self._gaps[product] = [gap for gap in gaps if gap[1] > horizon_start]
            second = np.array([second for second, _ in completed])
            is_lost = np.zeros(len(second), bool)
            for start, end in gaps:
                is_lost |= is_gap_in_horizon(second, start, end, self._horizon)
            completed = [label for label, lost in zip(completed, is_lost.tolist(), strict=True) if not lost]
        return [DelayedLabel(product, second, value) for second, value in completed if not isnan(value)]


class _Session:
    """The closing prices of a live session that its pending labels still need.

    ``second`` and ``price`` are those of the newest row, ``newest`` is its time in ns; ``finished`` is the newest
    finished second, whose price is the last of ``_closes``.
    """

    def __init__(self, second: int, session_id: int, price: float, horizon: int) -> None:
        self.id = session_id
        self.second = second
        self.price = price
        self.finished = second - 1
        self.newest = 0
        self._horizon = horizon
        self._closes: deque[float] = deque(maxlen=horizon + 1)
        self._pending: deque[int] = deque([second])

    def begin(self, second: int) -> None:
        """Starts a later second, which has a row."""
        self.second = second
        self._pending.append(second)

    def finish(self, last: int) -> list[tuple[int, float]]:
        """Finishes all seconds up to ``last`` at the present price; returns the labels that are now complete."""
        completed = self._completed(last)
        # more than a full deque would only push itself out
        self._closes.extend([self.price] * min(last - self.finished, self._horizon + 1))
        self.finished = max(last, self.finished)
        return completed

    def _completed(self, last: int) -> list[tuple[int, float]]:
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


def _merge_gaps(gaps: list[tuple[int, int]], horizon: int) -> list[tuple[int, int]]:
    """The same gaps in order. Those less than the horizon apart become one: no horizon fits between them."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(gaps):
        if merged and start - horizon * SECOND_NS < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    if len(merged) > MAX_GAPS:
        merged[:2] = [(merged[0][0], merged[1][1])]
    return merged
