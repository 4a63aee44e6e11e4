"""Checks of extra features, for the tests of the distributions that add them.

    from volspike.testing import check_feature

    def test_my_feature():
        check_feature(MY_FEATURE, slow_version)

The tapes are random but the same in every run: two products with bursts, silences, new sessions, gaps, late and
repeated ticks, and missing quotes and sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.features import ROW_FLOATS, Every, ExtraFeatures, FeatureEngine, FeatureRow, FeatureSet
from volspike.features.extra import IS_WHOLE, SECOND
from volspike.market import SECOND_NS, Cause, Gap, Kind, Profile, Side, Tick, Ticks

Floats: TypeAlias = NDArray[np.float64]
Reference: TypeAlias = Callable[[Mapping[str, Floats]], Mapping[str, Floats]]
"""The inputs of a session's seconds by name, each (n,) → each column without its prefix, (n,)."""

PRODUCTS: Final = ("AAA-USD", "BBB-USD")
_START: Final = 1_700_000_000 * SECOND_NS
_STEPS_S: Final = (0.0, 0.05, 0.4, 1.0, 1.0, 3.0, 12.0)
_SILENCES_S: Final = (45.0, 300.0, 301.0)


def check_feature(
    extra: ExtraFeatures,
    reference: Reference | None = None,
    *,
    feature_set: str = "core",
    windows: Sequence[int] = (30, 60, 300),
    tapes: int = 5,
    ticks: int = 600,
    tolerance: float = 1e-9,
) -> None:
    """Check extra features on random tapes.

    - Values are those of ``reference``, within ``tolerance`` times the value (or that absolute difference, if smaller).
    - The built-in columns keep every bit.
    - Rows are equal tick by tick, in bulk, and after a snapshot is restored in a new engine.
    - Ticks after a row do not change it, nor do those of another product.
    - The size of a snapshot does not depend on the number of ticks.

    Args:
        extra: the features.
        reference: a slow, obvious version: the inputs of each second of one session → the columns.
        feature_set: ``core``, ``full`` or ``deep``, with the built-in features that the inputs need.
        windows: window lengths in seconds.
        tapes: the number of tapes.
        ticks: the number of ticks in each.
        tolerance: the accepted difference from the reference.

    Raises:
        AssertionError: a check fails; the text names the column and the second.
        UsageError: the feature set lacks an input.
        PluginFailed: ``update`` raised.
    """
    base = FeatureSet.of(windows, feature_set)
    chosen = replace(base, extras=(extra,))
    for number in range(tapes):
        events = random_ticks(ticks, number)
        rows = _run(chosen, events)
        _check_built_in(extra, rows, _run(base, events))
        if reference is not None:
            _check_reference(extra, rows, reference, tolerance)
        _check_equal(extra, rows, _run_in_bulk(chosen, events), "in bulk")
        for cut in (1, len(events) // 3, len(events) - 1):
            _check_restart(extra, chosen, events, cut, rows)
            _check_later_ticks(extra, chosen, events, cut)
        _check_alone(extra, chosen, events, rows)
    _check_snapshot_size(extra, chosen, ticks)


Event: TypeAlias = Tick | Gap


def random_ticks(count: int, seed: int) -> list[Event]:
    """Ticks of two products in the order of receipt, with gaps between them."""
    random = np.random.default_rng(seed)
    time = dict.fromkeys(PRODUCTS, _START)
    price = dict.fromkeys(PRODUCTS, 100.0)
    events: list[Event] = []
    for _ in range(count):
        product = str(random.choice(PRODUCTS))
        steps = _SILENCES_S if random.random() < 0.01 else _STEPS_S
        time[product] += round(float(random.choice(steps)) * SECOND_NS)
        price[product] = round(price[product] * float(np.exp(2e-4 * random.standard_normal())), 2)
        late = round(2 * SECOND_NS * float(random.random())) if random.random() < 0.02 else 0
        events.append(_random_tick(random, product, time[product] - late, price[product]))
        if random.random() < 0.02:
            events.append(events[-1])  # a repeat
        if random.random() < 0.01:
            end = time[product] + SECOND_NS // 2
            events.append(Gap(start=end - SECOND_NS // 4, end=end, products=(product,), cause=Cause.RECONNECT))
    return events


def _random_tick(random: np.random.Generator, product: str, time: int, price: float) -> Tick:
    is_quoted, has_size = random.random() < 0.9, random.random() < 0.9
    sizes = [round(float(size), 4) for size in random.exponential(1.0, 3)]
    return Tick(
        time=time,
        received=time,
        kind=Kind.TICKER,
        product_id=product,
        price=price,
        best_bid=price - 0.01 if is_quoted else nan,
        best_ask=price + 0.02 if is_quoted else nan,
        bid_size=sizes[0] if is_quoted else nan,
        ask_size=sizes[1] if is_quoted else nan,
        last_size=sizes[2] if has_size else nan,
        side=Side.BUY if random.random() < 0.5 else Side.SELL,
    )


Rows: TypeAlias = list[FeatureRow]


def _engine(feature_set: FeatureSet) -> FeatureEngine:
    return FeatureEngine(feature_set, Profile.TICKER, Every.SECOND)


def _feed(engine: FeatureEngine, events: Sequence[Event]) -> Rows:
    rows: Rows = []
    for event in events:
        if isinstance(event, Gap):
            engine.mark_gap(event)
        else:
            rows.extend(engine.update(event))
    return rows


def _run(feature_set: FeatureSet, events: Sequence[Event]) -> Rows:
    return _feed(_engine(feature_set), events)


def _run_in_bulk(feature_set: FeatureSet, events: Sequence[Event]) -> Rows:
    engine = _engine(feature_set)
    rows: Rows = []
    waiting: list[Tick] = []
    for event in (*events, None):
        if isinstance(event, Tick):
            waiting.append(event)
            continue
        if waiting:
            rows.extend(row for part in engine.run(Ticks.of(waiting)) for row in part)
            waiting = []
        if event is not None:
            engine.mark_gap(event)
    return rows


def _check_built_in(extra: ExtraFeatures, rows: Rows, without: Rows) -> None:
    width = len(extra.columns)
    assert len(rows) == len(without), f"{extra.name} changes the number of rows"
    for row, other in zip(rows, without, strict=True):
        is_equal = row.values[:-width].tobytes() == other.values.tobytes()
        assert is_equal, f"{extra.name} changes a built-in column at {_place(row)}"


def _check_equal(extra: ExtraFeatures, rows: Rows, others: Rows, how: str) -> None:
    """The rows of a second run, which may have fewer at the end."""
    for row, other in zip(rows, others, strict=True):
        assert (row.timestamp, row.product_id) == (other.timestamp, other.product_id), f"other rows {how}"
        for name, ours, theirs in zip(extra.names, _own(extra, row), _own(extra, other), strict=True):
            is_equal = ours.tobytes() == theirs.tobytes()
            assert is_equal, f"{name} differs {how} at {_place(row)}: {ours} instead of {theirs}"


def _own(extra: ExtraFeatures, row: FeatureRow) -> Floats:
    return row.values[-len(extra.columns) :]


def _check_restart(extra: ExtraFeatures, chosen: FeatureSet, events: Sequence[Event], cut: int, rows: Rows) -> None:
    engine = _engine(chosen)
    first = _feed(engine, events[:cut])
    restarted = _engine(chosen)
    restarted.restore(engine.snapshot())
    _check_equal(extra, [*first, *_feed(restarted, events[cut:])], rows, "after a restart")


def _check_later_ticks(extra: ExtraFeatures, chosen: FeatureSet, events: Sequence[Event], cut: int) -> None:
    """Ticks after a row change nothing of it: other prices give the same rows until then."""
    before = _run(chosen, events[:cut])
    changed = [
        replace_price(event, 1.5) if isinstance(event, Tick) and number >= cut else event
        for number, event in enumerate(events)
    ]
    _check_equal(extra, _run(chosen, changed)[: len(before)], before, "with other later ticks")


def replace_price(tick: Tick, factor: float) -> Tick:
    """The tick with all prices multiplied."""
    import msgspec  # noqa: PLC0415

    prices = {name: getattr(tick, name) * factor for name in ("price", "best_bid", "best_ask")}
    return msgspec.structs.replace(tick, **prices)


def _check_alone(extra: ExtraFeatures, chosen: FeatureSet, events: Sequence[Event], rows: Rows) -> None:
    for product in PRODUCTS:
        own = [event for event in events if product in _products(event)]
        expected = [row for row in rows if row.product_id == product]
        _check_equal(extra, _run(chosen, own), expected, "without the other product")


def _products(event: Event) -> tuple[str, ...]:
    return event.products if isinstance(event, Gap) else (event.product_id,)


def _check_snapshot_size(extra: ExtraFeatures, chosen: FeatureSet, ticks: int) -> None:
    engine = _engine(chosen)
    sizes = []
    for number in range(2):
        _feed(engine, random_ticks(ticks, number))
        sizes.append(len(engine.snapshot()))
    assert sizes[0] == sizes[1], f"a snapshot of {extra.name} grows with the ticks: {sizes[0]} and {sizes[1]} bytes"


def _check_reference(extra: ExtraFeatures, rows: Rows, reference: Reference, tolerance: float) -> None:
    sessions: dict[tuple[str, int], Rows] = {}
    for row in rows:
        sessions.setdefault((row.product_id, row.session_id), []).append(row)
    for own in sessions.values():
        inputs = _inputs(extra, own)
        expected = reference(inputs)
        for place, column in enumerate(extra.columns):
            wanted = np.asarray(expected[column.name], np.float64)
            assert wanted.shape == (len(own),), f"the reference returned {wanted.shape} for {len(own)} seconds"
            found = np.array([_own(extra, row)[place] for row in own])
            agrees = np.isclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
            if not agrees.all():
                first = int(np.flatnonzero(~agrees)[0])
                raise AssertionError(
                    f"{extra.names[place]} is {found[first]} instead of {wanted[first]} at {_place(own[first])}, "
                    f"second {first + 1} of its session"
                )


def _inputs(extra: ExtraFeatures, rows: Rows) -> dict[str, Floats]:
    names = (*ROW_FLOATS, *rows[0].feature_set.names)
    values = np.array([row.values for row in rows])
    known = {name: values[:, column] for column, name in enumerate(names)}
    known[SECOND] = np.array([row.timestamp // SECOND_NS for row in rows], np.float64)
    known[IS_WHOLE] = np.array([row.is_whole for row in rows], np.float64)
    return {name: known[name] for name in extra.inputs}


def _place(row: FeatureRow) -> str:
    return f"second {row.timestamp // SECOND_NS} of {row.product_id}"
