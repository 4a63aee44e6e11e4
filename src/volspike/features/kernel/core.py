"""The columns of every row: the seven families over the windows, the quote, and the marks.

A window's sum is the difference of two records: the session's totals now, and those at the end of the second before the
window. So neither a longer window nor a higher rate makes a tick more expensive.
"""

from __future__ import annotations

from math import inf, nan

from volspike.compiled import inlined
from volspike.features.kernel.layout import (
    BOOKS,
    CLOCK,
    FAMILY_COUNT,
    FIRST_SECOND,
    HAS_SIZES,
    HOUR_LENGTH,
    HOUR_MASK,
    IMBALANCES,
    IS_WARM,
    IS_WHOLE,
    LAST_ASK,
    LAST_BID,
    MARK_FLAGS,
    MARK_PRODUCT,
    MARK_SESSION,
    MARK_TIME,
    MOVES,
    OUT_ASK,
    OUT_BID,
    OUT_FEATURES,
    OUT_PRICE,
    OUT_SPREAD,
    OUT_SPREAD_BPS,
    PRICE,
    QUOTES,
    RECORD_COLUMNS,
    RETURNS,
    SECOND,
    SECOND_NS,
    SILENCE_END,
    SILENCE_NS,
    SIZES,
    SPREADS,
    SQUARES,
    TICKS,
    VELOCITY,
    VOLATILITY,
    Array,
    Event,
    State,
)
from volspike.features.kernel.sums import add, deviation, difference, exact_product, log_ratio

# Sums


@inlined
def add_quote(totals: Array, latest: Array, event: Event) -> None:
    """Adds a tick's price, quote and book to the totals."""
    p = event.product
    totals[p, PRICE] = event.price
    totals[p, TICKS] += 1.0
    spread = event.ask - event.bid
    if abs(spread) < inf:
        totals[p, QUOTES] += 1.0
        add(totals, p, SPREADS, spread)
    resting = event.bid_size + event.ask_size
    if 0.0 < resting < inf:
        totals[p, BOOKS] += 1.0
        add(totals, p, IMBALANCES, event.bid_size / resting)
    latest[p, LAST_BID] = event.bid
    latest[p, LAST_ASK] = event.ask


@inlined
def add_return(records: Array, row: int, price: float, previous: float) -> float:
    """Adds the log return from ``previous`` to ``price`` to a record's Σr and Σr², and returns it."""
    if price == previous:
        return 0.0
    r = log_ratio(price, previous)
    square, square_low = exact_product(r, r)
    add(records, row, RETURNS, r)
    add(records, row, SQUARES, square)
    records[row, SQUARES + 1] += square_low
    return r


@inlined
def ring_row(state: State, p: int, second: int) -> int:
    """The row of ``rings`` with the record of a second."""
    return p * state.ring_length + (second & (state.ring_length - 1))


@inlined
def hour_row(p: int, second: int) -> int:
    """The row of ``hours`` with the record of a second."""
    return p * HOUR_LENGTH + (second & HOUR_MASK)


@inlined
def open_windows(state: State, p: int) -> bool:
    """Prepares what the rows of the second that begins have in common; returns whether all windows are warm."""
    rings, starts, second = state.rings, state.starts, state.clocks[p, SECOND]
    newest = ring_row(state, p, second - 1)
    for w in range(len(state.windows)):
        window = state.windows[w]
        if second - state.clocks[p, FIRST_SECOND] <= window:
            return False
        start, i = ring_row(state, p, second - window), p * len(state.windows) + w
        for column in range(RECORD_COLUMNS):
            starts[i, column] = rings[start, column]
        before = ring_row(state, p, second - window - 1)
        starts[i, VOLATILITY] = _realized_volatility(rings, newest, rings, before, window)
        starts[i, VELOCITY] = _price_velocity(rings, newest, rings, before, window)
    return True


# The families of a window: ``now`` and ``then`` are arrays of records, ``i`` and ``j`` the rows


@inlined
def _log_return(now: Array, i: int, then: Array, j: int) -> float:
    return log_ratio(now[i, PRICE], then[j, PRICE])


@inlined
def _realized_volatility(now: Array, i: int, then: Array, j: int, window: int) -> float:
    return deviation(now, i, then, j, window)


@inlined
def _price_velocity(now: Array, i: int, then: Array, j: int, window: int) -> float:
    return difference(now, i, then, j, MOVES) / window


@inlined
def _spread_mean(now: Array, i: int, then: Array, j: int) -> float:
    quotes = now[i, QUOTES] - then[j, QUOTES]
    return difference(now, i, then, j, SPREADS) / quotes if quotes > 0.0 else nan


@inlined
def _order_book_imbalance(now: Array, i: int, then: Array, j: int) -> float:
    books = now[i, BOOKS] - then[j, BOOKS]
    return difference(now, i, then, j, IMBALANCES) / books if books > 0.0 else nan


@inlined
def _trade_intensity(now: Array, i: int, then: Array, j: int) -> float:
    ticks: float = now[i, TICKS] - then[j, TICKS]
    return ticks


@inlined
def _volume_velocity(now: Array, i: int, then: Array, j: int, has_sizes: bool) -> float:
    return difference(now, i, then, j, SIZES) if has_sizes else nan


@inlined
def _write_window(
    state: State, p: int, row: int, w: int, then: Array, j: int, volatility: float, velocity: float
) -> None:
    """Writes the families of window number ``w``, which begins after the record in row ``j`` of ``then``."""
    values, now, count = state.values, state.totals, len(state.windows)
    at = OUT_FEATURES + w
    values[row, at] = _log_return(now, p, then, j)
    values[row, at + count] = volatility
    values[row, at + 2 * count] = velocity
    values[row, at + 3 * count] = _spread_mean(now, p, then, j)
    values[row, at + 4 * count] = _order_book_imbalance(now, p, then, j)
    values[row, at + 5 * count] = _trade_intensity(now, p, then, j)
    values[row, at + 6 * count] = _volume_velocity(now, p, then, j, state.clocks[p, HAS_SIZES] != 0)


@inlined
def _write_cold_window(state: State, row: int, w: int) -> None:
    for family in range(FAMILY_COUNT):
        state.values[row, OUT_FEATURES + w + family * len(state.windows)] = nan


@inlined
def write_windows_at_tick(state: State, p: int, row: int) -> None:
    """Writes the families as of the tick that was just added."""
    starts, finished = state.starts, state.clocks[p, SECOND] - state.clocks[p, FIRST_SECOND]
    for w in range(len(state.windows)):
        if finished > state.windows[w]:
            j = p * len(state.windows) + w
            _write_window(state, p, row, w, starts, j, starts[j, VOLATILITY], starts[j, VELOCITY])
        else:
            _write_cold_window(state, row, w)


@inlined
def write_windows_of_second(state: State, p: int, row: int) -> None:
    """Writes the families as of the end of the second that was closed last."""
    totals, rings, second = state.totals, state.rings, state.clocks[p, SECOND] - 1
    for w in range(len(state.windows)):
        window = state.windows[w]
        if second - state.clocks[p, FIRST_SECOND] >= window:
            j = ring_row(state, p, second - window)
            volatility = _realized_volatility(totals, p, rings, j, window)
            velocity = _price_velocity(totals, p, rings, j, window)
            _write_window(state, p, row, w, rings, j, volatility, velocity)
        else:
            _write_cold_window(state, row, w)


# The other columns


@inlined
def write_quote(state: State, p: int, row: int) -> None:
    """Writes the price and the newest quote."""
    values, bid, ask = state.values, state.latest[p, LAST_BID], state.latest[p, LAST_ASK]
    values[row, OUT_PRICE] = state.totals[p, PRICE]
    values[row, OUT_BID] = bid
    values[row, OUT_ASK] = ask
    values[row, OUT_SPREAD] = ask - bid
    values[row, OUT_SPREAD_BPS] = (ask - bid) / (0.5 * (ask + bid)) * 1e4


@inlined
def write_marks(state: State, p: int, row: int, now: int, is_warm: bool) -> None:
    """Writes time, session, flags and product."""
    marks, clocks = state.marks, state.clocks
    longest_ns = state.windows[len(state.windows) - 1] * SECOND_NS
    is_whole = now - clocks[p, CLOCK] <= SILENCE_NS and now - clocks[p, SILENCE_END] > longest_ns
    marks[row, MARK_TIME] = now
    marks[row, MARK_SESSION] = clocks[p, FIRST_SECOND]
    marks[row, MARK_FLAGS] = (IS_WARM if is_warm else 0) | (IS_WHOLE if is_whole else 0)
    marks[row, MARK_PRODUCT] = p
