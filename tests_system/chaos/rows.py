"""Comparison of rows, published scores and stored outcomes with the journal and with a replay of the tape.

``is_whole`` is exact in this sense, with W the longest window and T the time of a row:

- false, if the exchange made a tick in (T - W, T], before the row's own, that is not on the tape;
- true, if no fault, kill or loss lies in [T - W, T], each extended until the product's next tick was received;
- either, if only such an extension reaches into the window: it is not known when in it the loss ended.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from math import isnan
from typing import Any, Final, NamedTuple

import numpy as np

from tests_system.chaos.checks import Findings, Losses, Tape, TapeTick
from tests_system.chaos.run import Result, Run
from tests_system.chaos.truth import Journal
from volspike.features import FeatureEngine, FeatureRow, FeatureSet
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.live.view import finite
from volspike.market import SECOND_NS, Kind
from volspike.models import Artifact

WINDOWS: Final = (2, 5, 10)
"""Windows of the replayed rows: short, so that rows become complete again between two faults."""

CALM_NS: Final = 10 * SECOND_NS
"""A longer time without a tick counts as a loss, also if the market was calm."""

UNSAVED_NS: Final = 2 * SECOND_NS
"""The last predictions and outcomes before a kill, which may be missing."""

HORIZON_S: Final = 60
MS_NS: Final = 1_000_000


def check_rows(journal: Journal, tape: Tape, losses: Losses, findings: Findings) -> None:
    """``is_whole`` of the rows of the tape is exact."""
    rows: dict[str, list[tuple[FeatureRow, int]]] = defaultdict(list)
    for row, position in _replay(FeatureEngine(FeatureSet.of(WINDOWS)), tape):
        rows[row.product_id].append((row, position))
    for product, of_product in rows.items():
        tickers = [each for each in tape.of_product(product) if each.tick.kind == Kind.TICKER]
        lost = sorted((tick.position, tick.made) for tick in losses.noticeable if tick.key.product == product)
        times = [*(made for _, made in lost), *journal.disturbances(), *_breaks(tickers)]
        _check_rows(product, of_product, lost, DisturbedSpans(tickers, times), findings)


def _check_rows(
    product: str,
    rows: Sequence[tuple[FeatureRow, int]],
    lost: Sequence[tuple[int, int]],
    spans: DisturbedSpans,
    findings: Findings,
) -> None:
    """Check the rows of a product, each with the position of its tick, against its losses: position and time."""
    positions = [position for position, _ in lost]
    for row, position in rows:
        begins = row.timestamp - WINDOWS[-1] * SECOND_NS
        before = bisect_left(positions, position) - 1
        has_loss = before >= 0 and lost[before][1] > begins
        may_have_loss = spans.reach(row.timestamp) >= begins
        findings.counts["complete rows" if row.is_whole else "incomplete rows"] += 1
        findings.counts["rows at the edge of a gap"] += may_have_loss and not has_loss
        where = f"{product}, row {row.timestamp}"
        if has_loss and row.is_whole:
            findings.violate("a row with a loss in its window is incomplete", f"{where}, lost {lost[before]}")
        if not row.is_whole and not may_have_loss:
            findings.violate("a row without a loss in its window is complete", where)


def _replay(engine: FeatureEngine, tape: Tape) -> Iterator[tuple[FeatureRow, int]]:
    """The rows of a tape with the positions of their ticks; gaps are marked before the first tick received after."""
    gaps = sorted(tape.gaps, key=lambda gap: gap.end, reverse=True)
    for each in tape.ticks:
        while gaps and gaps[-1].end <= each.received:
            engine.mark_gap(gaps.pop())
        for row in engine.update(each.tick):
            yield row, each.position


def _breaks(tickers: Sequence[TapeTick]) -> Iterator[int]:
    """The times of the ticks after which the run or the connection changes, or the market is calm."""
    for before, after in pairwise(tickers):
        is_calm = after.time - before.time > CALM_NS
        if is_calm or (before.run, before.connection) != (after.run, after.connection):
            yield before.time


class DisturbedSpans:
    """The times of possible losses of a product, each with the receipt of the first tick after it."""

    def __init__(self, tickers: Sequence[TapeTick], times: Sequence[int]) -> None:
        by_time = sorted((each.time, each.received) for each in tickers)
        ticker_times = [time for time, _ in by_time]
        self._starts = sorted(times)
        self._ends: list[int] = []
        for start in self._starts:
            at = bisect_right(ticker_times, start)
            end = by_time[at][1] if at < len(by_time) else 1 << 62
            self._ends.append(max(end, self._ends[-1]) if self._ends else end)

    def reach(self, time: int) -> int:
        """The end (ns UTC) of the last span that begins by ``time``; -1 without one."""
        at = bisect_right(self._starts, time)
        return self._ends[at - 1] if at else -1


def replay_run(result: Result, tape: Tape, number: int) -> list[tuple[ScoredRow, int]]:
    """The rows that the ticks of one run give to a new scorer, with the receipt of their ticks."""
    folder = result.program.folder.parent / "model"
    scorer = LiveScorer(Artifact.load(folder), frozenset(Kind))
    ticks = [each.tick for each in tape.ticks if each.run == number]
    gaps = sorted(tape.gaps, key=lambda gap: gap.end, reverse=True)
    rows = []
    for tick in ticks:
        while gaps and gaps[-1].end <= tick.received:
            scorer.mark_gap(gaps.pop())
        rows += [(row, tick.received) for row in scorer.update(tick)]
    return rows


def check_published(
    result: Result,
    run: Run,
    rows: Sequence[tuple[ScoredRow, int]],
    ends: Mapping[str, int],
    findings: Findings,
) -> None:
    """Each row that a run published of its recorded ticks is a row of the replay.

    ``ends`` are the receipts of its last recorded ticks by product; a kill loses the ticks after them.
    """
    artifact = Artifact.load(result.program.folder.parent / "model")
    replayed: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    for scored, received in rows:
        point = published_form(scored, artifact)
        replayed[point["product"], point["time"], received // MS_NS].append(point)
    for point in run.points:
        if point["received"] > ends.get(point["product"], 0) // MS_NS:
            findings.counts["rows published of ticks lost by the kill"] += 1
            continue
        candidates = replayed[point["product"], point["time"], point["received"]]
        findings.counts["rows published live"] += 1
        findings.counts["probabilities published live"] += point["probability"] is not None
        if not any(all(point.get(name) == value for name, value in each.items()) for each in candidates):
            differing = [
                {name: (value, point.get(name)) for name, value in each.items() if point.get(name) != value}
                for each in candidates
            ]
            findings.violate(
                "a published row equals the replayed row",
                f"{point['product']} {point['time']}, received {point['received']}: (replayed, published) {differing}",
            )


def published_form(scored: ScoredRow, artifact: Artifact) -> dict[str, Any]:
    """The fields of a row on ``/stream`` that follow from the ticks."""
    row, values = scored.row, scored.row.by_name()
    return {
        "product": row.product_id,
        "time": row.timestamp // MS_NS,
        **{name: finite(values[name]) for name in ("price", "best_bid", "best_ask", "spread")},
        "probability": finite(scored.probability),
        "tau": finite(scored.tau),
        "is_warm": row.is_warm,
        "is_whole": row.is_whole,
        "features": {name: finite(values[name]) for name in artifact.features},
    }


class Stored(NamedTuple):
    """A stored prediction; the volatility is None without an outcome."""

    time: int
    probability: float
    future_volatility: float | None


def check_outcomes(
    result: Result, tape: Tape, rows_of_runs: Sequence[Sequence[tuple[ScoredRow, int]]], findings: Findings
) -> None:
    """One prediction per product and second is stored, with the outcome of the replay; none is stored twice."""
    with closing(sqlite3.connect(result.program.folder / "outcomes.sqlite")) as database:
        found = database.execute(
            "SELECT product, second, time, probability, future_volatility FROM predictions"
        ).fetchall()
    stored: dict[tuple[str, int], Stored] = {}
    for product, second, *values in found:
        if (product, second) in stored:
            findings.violate("a prediction is stored once", f"{product} {second}")
        stored[product, second] = Stored(*values)
    expected: dict[tuple[str, int], Stored] = {}
    due: set[tuple[str, int]] = set()
    ends: list[int] = []
    for number, rows in enumerate(rows_of_runs):
        ticks = [each for each in tape.ticks if each.run == number]
        if ticks:
            ends.append(ticks[-1].received)
            _expect(rows, ticks[-1].received, expected, due)
            _check_volatilities(ticks, rows, findings)
    _compare_stored(stored, expected, due, findings)
    for place, prediction in stored.items():
        if place not in expected and not any(abs(prediction.time - end) < UNSAVED_NS for end in ends):
            findings.violate("a stored prediction is one of the replay", f"{place}: {prediction}")


def _expect(
    rows: Sequence[tuple[ScoredRow, int]],
    end: int,
    expected: dict[tuple[str, int], Stored],
    due: set[tuple[str, int]],
) -> None:
    """Add the predictions of a run whose last tick was received at ``end``; those are due that must be stored."""
    for scored, received in rows:
        row, second = scored.row, scored.row.timestamp // SECOND_NS
        if not isnan(scored.probability):
            expected[row.product_id, second] = Stored(row.timestamp, scored.probability, None)
            completed = (second + HORIZON_S + 1) * SECOND_NS
            if received < end - UNSAVED_NS and not end - UNSAVED_NS < completed < end + UNSAVED_NS:
                due.add((row.product_id, second))
            else:
                due.discard((row.product_id, second))
        for outcome in scored.outcomes:
            place = (outcome.product, outcome.second)
            if place in expected:
                expected[place] = expected[place]._replace(future_volatility=outcome.future_volatility)
            if received >= end - UNSAVED_NS:
                due.discard(place)


def _compare_stored(
    stored: dict[tuple[str, int], Stored],
    expected: dict[tuple[str, int], Stored],
    due: set[tuple[str, int]],
    findings: Findings,
) -> None:
    for place in sorted(due - set(stored)):
        findings.violate("a prediction is stored", f"{place}: {expected[place]}")
    for place in sorted(due & set(stored)):
        findings.counts["predictions stored"] += 1
        findings.counts["outcomes stored"] += stored[place].future_volatility is not None
        if stored[place] != expected[place]:
            findings.violate("a stored prediction equals the replay", f"{place}: {stored[place]}, {expected[place]}")


def _check_volatilities(ticks: Sequence[TapeTick], rows: Sequence[tuple[ScoredRow, int]], findings: Findings) -> None:
    """Each outcome is the standard deviation of the next 60 log returns of the last price of each second."""
    prices: dict[str, dict[int, float]] = defaultdict(dict)
    newest: dict[str, int] = {}
    for each in ticks:
        tick = each.tick
        if tick.kind == Kind.TICKER and tick.time >= newest.get(tick.product_id, 0):  # a late tick changes no price
            newest[tick.product_id] = tick.time
            prices[tick.product_id][tick.time // SECOND_NS] = tick.price
    grids = {product: _Grid(of_seconds) for product, of_seconds in prices.items()}
    for scored, _ in rows:
        for outcome in scored.outcomes:
            expected = grids[outcome.product].volatility_after(outcome.second, HORIZON_S)
            findings.counts["outcomes computed again"] += 1
            if not np.isclose(outcome.future_volatility, expected, rtol=1e-9, atol=0.0):
                findings.violate("an outcome is the volatility of the next minute", f"{outcome}, computed {expected}")


class _Grid:
    """The last price of each second of a session, carried through seconds without a tick."""

    def __init__(self, prices: dict[int, float]) -> None:
        self._first = min(prices)
        seconds = np.arange(self._first, max(prices) + 1)
        known = np.array([prices.get(int(second), np.nan) for second in seconds])
        last = np.maximum.accumulate(np.where(np.isnan(known), 0, np.arange(len(known))))
        self._log_prices = np.log(known[last])

    def volatility_after(self, second: int, horizon: int) -> float:
        """The standard deviation (ddof 0) of the ``horizon`` log returns after ``second``."""
        at = second - self._first
        return float(np.std(np.diff(self._log_prices[at : at + horizon + 1])))
