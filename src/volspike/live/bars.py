"""Bars of price, spread, probability, threshold and expected move: grouping, and those of one second in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.market import SECOND_NS, Ticks

COLUMNS: Final = (
    *("open", "high", "low", "close", "spread_bps", "probability", "threshold"),
    *("expected_bp", "low_bp", "high_bp"),
)
DAY_S: Final = 86_400
CLOCK_STEP_S: Final = 300
"""A row this much earlier than the newest begins a new history, as on the next of several tapes."""

_OPEN, _HIGH, _LOW, _CLOSE, _SPREAD, _PROBABILITY, _THRESHOLD = range(7)
_FIRST_ROWS: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """n bars: ``second`` (n,) is the Unix second that each begins with, ``values`` (n, ``COLUMNS``), NaN: unknown."""

    second: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.second)

    @classmethod
    def empty(cls) -> Bars:
        """No bar."""
        return cls(np.empty(0, np.int64), np.empty((0, len(COLUMNS))))

    @classmethod
    def joined(cls, parts: Sequence[Bars]) -> Bars:
        """The bars of several parts in order of time, with equal times next to each other."""
        if not parts:
            return cls.empty()
        second = np.concatenate([part.second for part in parts])
        order = np.argsort(second, kind="stable")
        return cls(second[order], np.concatenate([part.values for part in parts])[order])

    def between(self, first: int, last: int) -> Bars:
        """The bars that begin from ``first`` to ``last``, excluded; they must be in order of time."""
        start, end = np.searchsorted(self.second, (first, last))
        return Bars(self.second[start:end], self.values[start:end])

    def without(self, second: NDArray[np.int64]) -> Bars:
        """The bars of other seconds."""
        is_other = ~np.isin(self.second, second)
        return Bars(self.second[is_other], self.values[is_other])

    def prices(self) -> Bars:
        """The bars with the columns that a tape fills, for memory."""
        return Bars(self.second, self.values[:, : _SPREAD + 1].copy())

    def complete(self) -> Bars:
        """Bars of ``prices`` with all columns, the others unknown."""
        values = np.full((len(self), len(COLUMNS)), nan)
        values[:, : _SPREAD + 1] = self.values
        return Bars(self.second, values)

    def grouped(self, step_s: int) -> Bars:
        """Longer bars: first open, highest high, lowest low, last close, mean spread, highest probability.

        Threshold and expected move are the last known ones. Times without a bar have none here either.
        """
        if len(self) == 0:
            return self
        key = self.second // step_s
        first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
        values = np.empty((len(first), len(COLUMNS)))
        values[:, _OPEN] = _first_known(self.values[:, _OPEN], first)
        values[:, _HIGH] = np.fmax.reduceat(self.values[:, _HIGH], first)
        values[:, _LOW] = np.fmin.reduceat(self.values[:, _LOW], first)
        values[:, _SPREAD] = _mean_known(self.values[:, _SPREAD], first)
        values[:, _PROBABILITY] = np.fmax.reduceat(self.values[:, _PROBABILITY], first)
        for column in (_CLOSE, *range(_THRESHOLD, len(COLUMNS))):
            values[:, column] = _last_known(self.values[:, column], first)
        return Bars(key[first] * step_s, values)

    @classmethod
    def of_scores(
        cls, second: NDArray[np.int64], probability: NDArray[np.float64], threshold: NDArray[np.float64]
    ) -> Bars:
        """Bars with probability and threshold only."""
        values = np.full((len(second), len(COLUMNS)), nan)
        values[:, _PROBABILITY], values[:, _THRESHOLD] = probability, threshold
        return cls(second, values)

    def columns(self) -> dict[str, list[float | None]]:
        """The values by name, None where unknown, and ``time`` in ms."""
        lists: dict[str, list[Any]] = {"time": (1000 * self.second).tolist()}
        for number, name in enumerate(COLUMNS):
            lists[name] = [value if isfinite(value) else None for value in self.values[:, number].tolist()]
        return lists


def _mean_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    is_known = ~np.isnan(values)
    count = np.add.reduceat(is_known, first, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.add.reduceat(np.where(is_known, values, 0.0), first) / count)


def _last_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    place = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.reduceat(place, first)
    return np.where(last >= 0, values[last], nan)


def _first_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    place = np.where(np.isnan(values), len(values), np.arange(len(values)))
    found = np.minimum.reduceat(place, first)
    return np.where(found < len(values), values[np.minimum(found, len(values) - 1)], nan)


class SecondBars:
    """The one-second bars of the last ``seconds`` seconds with a row."""

    def __init__(self, seconds: int = DAY_S) -> None:
        self._limit = seconds
        self._second = np.empty(min(_FIRST_ROWS, seconds), np.int64)
        self._values = np.empty((len(self._second), len(COLUMNS)))
        self._count = 0
        self._next = 0
        self._current = -1
        self._bar: list[float] = []
        self._spreads = 0  # ticks with a quote in the newest bar

    def __len__(self) -> int:
        return self._count + (self._current >= 0)

    @property
    def first_second(self) -> int | None:
        """The second of the oldest bar; None without one."""
        if self._count == 0:
            return None if self._current < 0 else self._current
        return int(self._second[self._next if self._count == self._limit else 0])

    @property
    def last_price(self) -> float:
        """The price of the newest tick of the newest bar; NaN without one."""
        return self._bar[_CLOSE] if self._bar else nan

    def add_tick(self, second: int, price: float, spread_bps: float = nan) -> None:
        """Add a tick in ``second``. Ticks before the newest second are ignored, unless time steps back."""
        if not price > 0.0 or not self._begin(second):
            return
        bar = self._bar
        if isnan(bar[_OPEN]):
            bar[_OPEN : _CLOSE + 1] = (price, price, price, price)
        else:
            bar[_HIGH], bar[_LOW], bar[_CLOSE] = max(bar[_HIGH], price), min(bar[_LOW], price), price
        if not isnan(spread_bps):
            self._spreads += 1
            before = 0.0 if self._spreads == 1 else bar[_SPREAD]
            bar[_SPREAD] = before + (spread_bps - before) / self._spreads

    def add_score(
        self, second: int, probability: float, threshold: float, move: tuple[float, float, float] = (nan, nan, nan)
    ) -> None:
        """Add the score of a row in ``second``, which comes after the ticks that made the row."""
        if not self._begin(second):
            return
        bar = self._bar
        if isfinite(probability) and not bar[_PROBABILITY] >= probability:
            bar[_PROBABILITY] = probability
        bar[_THRESHOLD:] = (threshold, *move)

    def _begin(self, second: int) -> bool:
        """Whether the newest bar is that of ``second``, which it becomes if that is later."""
        if second == self._current:
            return True
        if second < self._current:
            if second > self._current - CLOCK_STEP_S:
                return False
            self._count = self._next = 0
        elif self._current >= 0:
            self._store()
        self._current, self._spreads = second, 0
        self._bar = [nan] * len(COLUMNS)
        return True

    def _store(self) -> None:
        if self._next == len(self._second) < self._limit:
            size = min(self._limit, 2 * len(self._second))
            self._second = np.resize(self._second, size)
            self._values = np.resize(self._values, (size, len(COLUMNS)))
        self._next %= self._limit
        self._second[self._next] = self._current
        self._values[self._next] = self._bar
        self._next += 1
        self._count = min(self._count + 1, self._limit)
        if self._next == self._limit:
            self._next = 0

    def between(self, first: int, last: int) -> Bars:
        """The bars of seconds from ``first`` to ``last``, excluded."""
        oldest = self._next if self._count == self._limit else 0
        parts = []
        for part in (slice(oldest, self._count), slice(0, oldest)):
            second, values = self._second[part], self._values[part]
            start, end = np.searchsorted(second, (first, last))
            parts.append((second[start:end], values[start:end]))
        if first <= self._current < last:
            parts.append((np.array([self._current]), np.array([self._bar])))
        return Bars(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def tick_bars(ticks: Ticks, product: str) -> Bars:
    """The one-second bars of a product's ticks by the exchange's time; without probabilities."""
    if product not in ticks.products:
        return Bars.empty()
    rows = np.flatnonzero((ticks.product == ticks.products.index(product)) & (ticks.price > 0.0))
    second = ticks.time[rows] // SECOND_NS
    order = np.argsort(second, kind="stable")
    rows, second = rows[order], second[order]
    values = np.full((len(rows), len(COLUMNS)), nan)
    values[:, _OPEN : _CLOSE + 1] = ticks.price[rows][:, None]
    bid, ask = ticks.best_bid[rows], ticks.best_ask[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        values[:, _SPREAD] = np.where((bid > 0.0) & (ask > 0.0), 1e4 * (ask - bid) / (0.5 * (ask + bid)), nan)
    return Bars(second, values).grouped(1)
