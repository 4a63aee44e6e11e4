"""Days of scored rows for a timeline: price, probability, threshold, spike events, alerts, and time without data.

A day is divided into bars. A bar has the highest and lowest price, the highest probability and the last threshold of
its rows, so that no extreme is lost; with at most one row in each bar nothing is lost at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import open_feature_file
from volspike.evaluation import Scored
from volspike.evaluation.scored import DAY_NS
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS, format_time
from volspike.reporting.alert_history import AlertRecord, SpikeSpan

MOST_DAYS: Final = 21
"""Days of a product in one page; those with the most spike events are kept."""

FINE_BAR_S: Final = 1
"""Bars of the day with the most spike events: every row of a feature file with one row per second."""

COARSE_BAR_S: Final = 30
"""Bars of the other days, so that the page stays below 8 MB."""

SHORTEST_GAP_S: Final = 5
"""Shorter runs of rows without a score, or with data loss, are not drawn."""

NO_DATA: Final = "no data"
NOT_SCORED: Final = "not evaluated: warm-up, unknown outcome, or not held out"
DATA_LOSS: Final = "data loss or a silence over 10 s in the windows of these rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingData:
    """A span without data or without a score (ns UTC), and its cause."""

    start: int
    end: int
    cause: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TimelineDay:
    """A UTC day of one product in k bars, with the events that begin on it.

    ``at`` (k,) are milliseconds from ``start`` (ns), the day's beginning. ``low``, ``high`` and ``close`` are prices;
    ``probability`` is NaN where no row was scored. ``rows`` is the number of rows of the feature file.
    """

    product: str
    start: int
    bar_s: int
    rows: int
    at: NDArray[np.uint32]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    close: NDArray[np.float64]
    probability: NDArray[np.float32]
    threshold: NDArray[np.float32]
    alerts: tuple[AlertRecord, ...]
    spans: tuple[SpikeSpan, ...]
    missing: tuple[MissingData, ...]

    @property
    def day(self) -> str:
        """The date."""
        return format_time(self.start)[:10]

    @property
    def is_complete(self) -> bool:
        """Whether every row of the file is a bar of its own."""
        return self.rows == len(self.at)


def timeline_days(
    features: Path,
    scored: Scored,
    products: Sequence[str],
    alerts: Sequence[AlertRecord],
    spans: Sequence[SpikeSpan],
) -> tuple[TimelineDay, ...]:
    """The days of the scored rows, the one with the most spike events first and in the most detail.

    Prices are those of the feature file ``features``, from which the rows were scored; ``products`` are by code.

    Raises:
        UnreadableFile: ``features`` is not a feature file.
    """
    counts = dict.fromkeys(zip(scored.product.tolist(), scored.day.tolist(), strict=True), 0)
    code = {name: number for number, name in enumerate(products)}
    for span in spans:
        counts[code[span.product], span.first // DAY_NS] += 1
    ranked = sorted(counts, key=lambda key: (-counts[key], -key[1], key[0]))[:MOST_DAYS]
    rows = _MarketRows.read(features)
    return tuple(
        _build_day(
            rows.only(products[product], day),
            scored.only((scored.product == product) & (scored.day == day)),
            products[product],
            day,
            FINE_BAR_S if number == 0 else COARSE_BAR_S,
            alerts,
            spans,
        )
        for number, (product, day) in enumerate(ranked)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _MarketRows:
    """Rows of a feature file in order of time: ns, product, price, and whether no data loss is in their windows."""

    time: NDArray[np.int64]
    product: NDArray[np.object_]
    price: NDArray[np.float64]
    is_whole: NDArray[np.bool_]

    @classmethod
    def read(cls, features: Path) -> _MarketRows:
        file = open_feature_file(features)
        names = file.schema_arrow.names
        table = file.read([name for name in ("timestamp", "product_id", "price", "is_whole") if name in names])
        time = numbers(table, "timestamp").astype(np.int64)
        order = np.argsort(time, kind="stable")
        product = np.asarray(table["product_id"].cast("string").to_numpy(zero_copy_only=False))
        price = numbers(table, "price") if "price" in names else np.full(len(time), np.nan)
        is_whole = (
            np.asarray(pc.fill_null(table["is_whole"], True)) if "is_whole" in names else np.ones(len(time), np.bool_)
        )
        return cls(time[order], product[order], price[order], is_whole[order])

    def only(self, product: str, day: int) -> _MarketRows:
        """The rows of one product and UTC day."""
        first, last = np.searchsorted(self.time, [day * DAY_NS, (day + 1) * DAY_NS])
        kept = first + np.flatnonzero(self.product[first:last] == product)
        return _MarketRows(self.time[kept], self.product[kept], self.price[kept], self.is_whole[kept])


def _build_day(
    rows: _MarketRows,
    scored: Scored,
    product: str,
    day: int,
    bar_s: int,
    alerts: Sequence[AlertRecord],
    spans: Sequence[SpikeSpan],
) -> TimelineDay:
    start, bar_ns = day * DAY_NS, bar_s * SECOND_NS
    bar = (rows.time - start) // bar_ns
    first = np.flatnonzero(np.diff(bar, prepend=-1) > 0)
    last = np.append(first[1:], len(bar))[: len(first)] - 1
    number = bar[first]
    probability, threshold = np.full((2, len(number)), np.nan)
    order = np.argsort(scored.time, kind="stable")
    place = np.searchsorted(number, (scored.time[order] - start) // bar_ns)
    np.fmax.at(probability, place, scored.probability[order])
    threshold[place] = scored.threshold[order]
    is_whole = np.minimum.reduceat(rows.is_whole, first) if len(first) else rows.is_whole
    return TimelineDay(
        product=product,
        start=start,
        bar_s=bar_s,
        rows=len(rows.time),
        at=(number * bar_s * 1000).astype(np.uint32),
        low=np.fmin.reduceat(rows.price, first) if len(first) else rows.price,
        high=np.fmax.reduceat(rows.price, first) if len(first) else rows.price,
        close=rows.price[last],
        probability=probability.astype(np.float32),
        threshold=threshold.astype(np.float32),
        alerts=tuple(one for one in alerts if one.product == product and one.opened // DAY_NS == day),
        spans=tuple(one for one in spans if one.product == product and one.first // DAY_NS == day),
        missing=(
            *_silences(start, number, bar_ns),
            *_runs(start, number, bar_ns, np.isnan(probability), NOT_SCORED),
            *_runs(start, number, bar_ns, ~is_whole, DATA_LOSS),
        ),
    )


def _silences(start: int, number: NDArray[np.int64], bar_ns: int) -> list[MissingData]:
    """Silences of at least a horizon, the time from which a row covers nothing."""
    ends = np.concatenate([[0], (number + 1) * bar_ns])
    begins = np.concatenate([number * bar_ns, [DAY_NS]])
    is_long = begins - ends >= HORIZON_S * SECOND_NS
    return [
        MissingData(start=start + int(end), end=start + int(begin), cause=NO_DATA)
        for end, begin in zip(ends[is_long], begins[is_long], strict=True)
    ]


def _runs(
    start: int, number: NDArray[np.int64], bar_ns: int, is_in: NDArray[np.bool_], cause: str
) -> list[MissingData]:
    """The runs of bars that are ``is_in``; a silence ends a run."""
    places = np.flatnonzero(is_in)
    if not len(places):
        return []
    is_apart = (np.diff(places) > 1) | (np.diff(number[places]) * bar_ns >= HORIZON_S * SECOND_NS)
    first, last = number[places[np.append(True, is_apart)]], number[places[np.append(is_apart, True)]] + 1
    return [
        MissingData(start=start + int(begin) * bar_ns, end=start + int(end) * bar_ns, cause=cause)
        for begin, end in zip(first, last, strict=True)
        if (end - begin) * bar_ns >= SHORTEST_GAP_S * SECOND_NS
    ]
