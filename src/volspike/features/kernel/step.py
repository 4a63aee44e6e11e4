"""One event of one product: admission, session, finished seconds, sums, row.

``step`` (live) and ``run`` (replay) are the entry points from Python; both pass each event to ``_process``. They take
flat arguments, because numba needs 14 to 29 µs to unpack a NamedTuple that comes from Python.

Three rules of this package make a tick cheap. Code for every tick is inlined, because an array argument is nine machine
words. Arrays are passed with a row number rather than sliced, because a slice is an object with an atomic reference
count. The arrays in ``State`` are not counted at all: they are ``borrowed`` from the entry points' arguments.
"""

from __future__ import annotations

from math import inf, nan

from numba import int64

from volspike.compiled import borrowed, compiled, inlined, internal
from volspike.features.kernel.added import (
    add_intensity,
    add_order_flow,
    add_side,
    clear_second,
    collect_second,
    decayed_intensities,
    record_hour,
    record_hour_early,
    update_leader_mean,
    update_means,
    write_added,
    write_cold_added,
    write_second,
)
from volspike.features.kernel.core import (
    add_quote,
    add_return,
    open_windows,
    ring_row,
    write_marks,
    write_quote,
    write_windows_at_tick,
    write_windows_of_second,
)
from volspike.features.kernel.day import remember_second
from volspike.features.kernel.layout import (
    CLOCK,
    CLOCK_SET_BACK_AFTER,
    DUPLICATES,
    FAMILY_COUNT,
    FIRST_SECOND,
    HAS_SIZES,
    ID_COUNT,
    IN_SESSION,
    INTENSITIES,
    INVALID,
    LARGEST_ID,
    LAST_TICK,
    LAST_TRADE,
    LATE,
    MARK_EVENT,
    MESSAGE_COLUMNS,
    MESSAGES,
    MOVES,
    NEWEST,
    NEWEST_SEQUENCE,
    NO_LEADER,
    OLDER_IN_A_ROW,
    OUT_FEATURES,
    OUT_GAP,
    OUT_SINCE_TRADE,
    PREVIOUS_CLOCK,
    PREVIOUS_FIRST,
    PRICE,
    RECORD_COLUMNS,
    REMEMBERED_IDS,
    SECOND,
    SECOND_NS,
    SESSION_GAP_NS,
    SILENCE_END,
    SILENCE_NS,
    SIZES,
    TICKER_KIND,
    TRADES_ARE_TICKS,
    TRADES_GIVE_SIZES,
    TRADES_IGNORED,
    UNPLACED,
    Array,
    Event,
    State,
)
from volspike.features.kernel.price_path import add_price, begin_path, collect_path, update_log_means
from volspike.features.kernel.sums import add

# Admission


@inlined
def _is_equal(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)  # noqa: PLR0124  NaN is the value that is not itself


@internal
def _is_duplicate(latest: Array, clocks: Array, trade_ids: Array, event: Event) -> bool:
    """Its trade id is among those remembered or, if it has none, it equals the newest event of its kind.

    Two equal trades at one time are two trades, unless an id or a sequence number says that they are one.
    """
    p, kind = event.product, event.kind
    if event.trade_id >= 0:
        if event.trade_id > clocks[p, LARGEST_ID + kind]:
            return False
        for i in range(min(clocks[p, ID_COUNT + kind], REMEMBERED_IDS)):
            if trade_ids[p, kind, i] == event.trade_id:
                return True
        return False
    if kind != TICKER_KIND and event.sequence < 0:
        return False
    at = MESSAGES + kind * MESSAGE_COLUMNS
    return (
        event.time == clocks[p, NEWEST + kind]
        and event.sequence == clocks[p, NEWEST_SEQUENCE + kind]
        and event.price == latest[p, at]
        and _is_equal(event.bid, latest[p, at + 1])
        and _is_equal(event.ask, latest[p, at + 2])
        and _is_equal(event.bid_size, latest[p, at + 3])
        and _is_equal(event.ask_size, latest[p, at + 4])
        and _is_equal(event.last_size, latest[p, at + 5])
    )


@internal
def _is_late(clocks: Array, p: int, kind: int, time: int) -> bool:
    """Older than the newest of its kind, unless the exchange's clock was set back.

    One tick stamped far in the future must not make every later one late: once ``CLOCK_SET_BACK_AFTER`` events in a row
    are older by more than a session's gap, the newest time was wrong, and a new session begins. After a reported clock
    step the first event that is older by more than a second is enough.
    """
    if time >= clocks[p, NEWEST + kind]:
        return False
    is_step_known = clocks[p, OLDER_IN_A_ROW] >= CLOCK_SET_BACK_AFTER
    if clocks[p, NEWEST + kind] - time <= (SECOND_NS if is_step_known else SESSION_GAP_NS):
        return True
    clocks[p, OLDER_IN_A_ROW] += 1
    if clocks[p, OLDER_IN_A_ROW] < CLOCK_SET_BACK_AFTER:
        return True
    clocks[p, NEWEST] = time
    clocks[p, NEWEST + 1] = time
    clocks[p, CLOCK] = 0
    clocks[p, IN_SESSION] = 0
    return False


@inlined
def _remember(latest: Array, clocks: Array, trade_ids: Array, event: Event) -> None:
    """Keeps what later events are compared with."""
    p, kind = event.product, event.kind
    clocks[p, OLDER_IN_A_ROW] = 0
    clocks[p, NEWEST + kind] = event.time
    clocks[p, NEWEST_SEQUENCE + kind] = event.sequence
    at = MESSAGES + kind * MESSAGE_COLUMNS
    latest[p, at] = event.price
    latest[p, at + 1] = event.bid
    latest[p, at + 2] = event.ask
    latest[p, at + 3] = event.bid_size
    latest[p, at + 4] = event.ask_size
    latest[p, at + 5] = event.last_size
    if event.trade_id >= 0:
        trade_ids[p, kind, clocks[p, ID_COUNT + kind] & (REMEMBERED_IDS - 1)] = event.trade_id
        clocks[p, ID_COUNT + kind] += 1
        clocks[p, LARGEST_ID + kind] = max(clocks[p, LARGEST_ID + kind], event.trade_id)


@inlined
def _admit(state: State, event: Event) -> bool:
    """Whether an event is valid, new and in order; if not, the reason is counted. Ignored trades are not counted."""
    latest, clocks, p, kind = state.latest, state.clocks, event.product, event.kind
    if kind != TICKER_KIND and state.trades == TRADES_IGNORED:
        return False
    if not 0.0 < event.price < inf:
        clocks[p, INVALID] += 1
        return False
    is_newest = event.time > clocks[p, NEWEST + kind]
    has_new_id = event.trade_id < 0 or event.trade_id > clocks[p, LARGEST_ID + kind]
    if not (is_newest and has_new_id):
        if _is_duplicate(latest, clocks, state.trade_ids, event):
            clocks[p, DUPLICATES] += 1
            return False
        if _is_late(clocks, p, kind, event.time):
            clocks[p, LATE] += 1
            return False
    _remember(latest, clocks, state.trade_ids, event)
    return True


# Sessions


@inlined
def _is_session_over(clocks: Array, p: int, now: int) -> bool:
    """Whether an event at ``now`` begins a session."""
    is_over: bool = clocks[p, IN_SESSION] == 0 or now - clocks[p, CLOCK] > SESSION_GAP_NS
    return is_over


@internal
def _begin_session(state: State, scope: tuple[int, ...], p: int, now: int) -> None:
    clocks = state.clocks
    if len(scope) > 0 and clocks[p, IN_SESSION] != 0:
        record_hour_early(state, p)  # rows of other products may still need it, if this one is their leader
    clocks[p, PREVIOUS_FIRST] = clocks[p, FIRST_SECOND]
    clocks[p, PREVIOUS_CLOCK] = clocks[p, CLOCK]
    for column in range(RECORD_COLUMNS):
        state.totals[p, column] = 0.0
    for column in range(state.averages.shape[1]):
        state.averages[p, column] = 0.0
    clocks[p, LAST_TICK] = now
    clocks[p, SECOND] = now // SECOND_NS
    clocks[p, FIRST_SECOND] = now // SECOND_NS
    clocks[p, LAST_TRADE] = 0
    clocks[p, SILENCE_END] = 0
    clocks[p, IN_SESSION] = 1
    clocks[p, HAS_SIZES] = 0 if state.trades == TRADES_IGNORED else 1


@inlined
def _roll_session(state: State, scope: tuple[int, ...], p: int, now: int, row: int) -> int:
    """Ends the session, if there is one, and begins the next; returns how many rows that made."""
    rows = 0
    if state.clocks[p, IN_SESSION] != 0 and state.every_second:
        _close_second(state, scope, p)
        _emit_second(state, scope, p, row)
        rows = 1
    _begin_session(state, scope, p, now)
    return rows


# Finished seconds


@internal
def _close_second(state: State, scope: tuple[int, ...], p: int) -> float:
    """Ends the unfinished second: its return joins the totals, and a copy of them becomes its record.

    Returns its log return, 0 for a session's first second.
    """
    totals, rings, second, r = state.totals, state.rings, state.clocks[p, SECOND], 0.0
    if second > state.clocks[p, FIRST_SECOND]:
        before = ring_row(state, p, second - 1)
        price, previous = totals[p, PRICE], rings[before, PRICE]
        r = add_return(totals, p, price, previous)
        if r != 0.0:
            add(totals, p, MOVES, abs(price - previous))
        if len(scope) > 0:
            collect_second(state, p, before, r)
            collect_path(state.averages, state.clocks, p, price, r)
            update_means(state.averages, p)
            update_log_means(state.averages, p)
    if len(scope) > 0:
        begin_path(state.averages, p, totals[p, PRICE])
        record_hour(state, p)
        clear_second(state.averages, p)
    record = ring_row(state, p, second)
    for column in range(RECORD_COLUMNS):
        rings[record, column] = totals[p, column]
    state.clocks[p, SECOND] = second + 1
    if len(scope) > 0 and state.leader != NO_LEADER:
        update_leader_mean(state, p)
    return r


@inlined
def _close_seconds(state: State, scope: tuple[int, ...], p: int, now: int, row: int) -> int:
    """Ends all seconds before ``now``; returns how many rows that made: with a row per second, one for each."""
    rows, second = 0, now // SECOND_NS
    if state.clocks[p, SECOND] == second:
        return 0
    while state.clocks[p, SECOND] < second:
        remember_second(state.latest, p, state.clocks[p, SECOND], _close_second(state, scope, p))
        if state.every_second:
            _emit_second(state, scope, p, row + rows)
            rows += 1
    if not state.every_second and open_windows(state, p) and len(scope) > 0:
        write_second(state, scope, p)
    return rows


# Sums


@inlined
def _add_event(state: State, scope: tuple[int, ...], event: Event, now: int, is_tick: bool) -> None:
    """Adds an event to the sums of the unfinished second, at the product's clock ``now``."""
    p, clocks = event.product, state.clocks
    clocks[p, CLOCK] = now
    if abs(event.last_size) < inf:
        clocks[p, LAST_TRADE] = now
        if not is_tick or state.trades != TRADES_GIVE_SIZES:
            add(state.totals, p, SIZES, event.last_size)
            clocks[p, HAS_SIZES] = 1
            if len(scope) > 0 and event.side != 0:
                add_side(state.averages, p, event.side, event.last_size)
    if is_tick:
        if len(scope) > 0:
            add_price(state.averages, state.totals, clocks, p, now, event.price)
        add_quote(state.totals, state.latest, event)
        if len(scope) > 0:
            add_intensity(state.averages, clocks, p, now)
            add_order_flow(state.averages, event)


# Rows


@inlined
def _seconds_since(time: int, now: int) -> float:
    return (now - time) / 1e9 if time > 0 else nan


@internal
def _emit_second(state: State, scope: tuple[int, ...], p: int, row: int) -> None:
    """Writes the row at the end of the second that was closed last."""
    values, clocks, second = state.values, state.clocks, state.clocks[p, SECOND] - 1
    now = (second + 1) * SECOND_NS
    write_windows_of_second(state, p, row)
    write_quote(state, p, row)
    values[row, OUT_SINCE_TRADE] = _seconds_since(clocks[p, LAST_TRADE], now)
    values[row, OUT_GAP] = (now - clocks[p, CLOCK]) / 1e9
    is_warm = second - clocks[p, FIRST_SECOND] >= state.windows[len(state.windows) - 1]
    if len(scope) > 0:
        at = OUT_FEATURES + FAMILY_COUNT * len(state.windows)
        if is_warm:
            write_second(state, scope, p)
            write_added(state, p, row, at, decayed_intensities(state.averages, clocks, p, now))
        else:
            write_cold_added(values, row, at)
    write_marks(state, p, row, now, is_warm)


@inlined
def _emit_tick(state: State, scope: tuple[int, ...], p: int, row: int, last_event: int, last_trade: int) -> None:
    """Writes the row at the tick that was just added; the last event and trade are those before it, 0 if none."""
    values, averages, clocks = state.values, state.averages, state.clocks
    now = clocks[p, CLOCK]
    write_windows_at_tick(state, p, row)
    write_quote(state, p, row)
    values[row, OUT_SINCE_TRADE] = _seconds_since(last_trade, now)
    values[row, OUT_GAP] = _seconds_since(last_event, now)
    is_warm = clocks[p, SECOND] - clocks[p, FIRST_SECOND] > state.windows[len(state.windows) - 1]
    if len(scope) > 0:
        at = OUT_FEATURES + FAMILY_COUNT * len(state.windows)
        if is_warm:
            intensities = averages[p, INTENSITIES], averages[p, INTENSITIES + 1], averages[p, INTENSITIES + 2]
            write_added(state, p, row, at, intensities)
        else:
            write_cold_added(values, row, at)
    write_marks(state, p, row, now, is_warm)


# One event


@inlined
def _process(state: State, scope: tuple[int, ...], event: Event, row: int) -> int:
    """Takes one event and writes the rows it makes from ``row`` on; returns how many.

    With a row per tick an event makes at most one. With a row per second it makes one for every second that it shows
    to be over: at most the seconds of ``SESSION_GAP_NS`` and one.
    """
    if not _admit(state, event):
        return 0
    p, clocks = event.product, state.clocks
    is_tick = event.kind == TICKER_KIND or state.trades == TRADES_ARE_TICKS
    last_event = clocks[p, CLOCK]
    now = max(event.time, last_event)
    is_new_session = _is_session_over(clocks, p, now)
    rows = 0
    if is_new_session:
        if not is_tick:
            clocks[p, UNPLACED] += 1
            return 0
        rows = _roll_session(state, scope, p, now, row)
    rows += _close_seconds(state, scope, p, now, row + rows)
    if now - last_event > SILENCE_NS and not is_new_session:
        clocks[p, SILENCE_END] = now
    last_trade = clocks[p, LAST_TRADE]
    _add_event(state, scope, event, now, is_tick)
    if not is_tick or state.every_second:
        return rows
    _emit_tick(state, scope, p, row, last_event, last_trade)
    return 1


@compiled
def step(
    rings: Array,
    totals: Array,
    starts: Array,
    hours: Array,
    averages: Array,
    latest: Array,
    clocks: Array,
    trade_ids: Array,
    windows: tuple[int, ...],
    scope: tuple[int, ...],
    ring_length: int,
    trades: int,
    every_second: bool,
    leader: int,
    product: int,
    time: int,
    kind: int,
    price: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    last_size: float,
    side: int,
    trade_id: int,
    sequence: int,
    values: Array,
    marks: Array,
) -> int:
    """Takes one event and writes the rows it makes from row 0 on; returns how many."""
    state = State(
        borrowed(rings), borrowed(totals), borrowed(starts), borrowed(hours), borrowed(averages), borrowed(latest),
        borrowed(clocks), borrowed(trade_ids), windows, ring_length, trades, every_second, leader,
        borrowed(values), borrowed(marks),
    )  # fmt: skip
    event = Event(product, time, kind, price, bid, ask, bid_size, ask_size, last_size, side, trade_id, sequence)
    return _process(state, scope, event, int64(0))


@compiled
def run(
    rings: Array,
    totals: Array,
    starts: Array,
    hours: Array,
    averages: Array,
    latest: Array,
    clocks: Array,
    trade_ids: Array,
    windows: tuple[int, ...],
    scope: tuple[int, ...],
    ring_length: int,
    trades: int,
    every_second: bool,
    leader: int,
    products: Array,
    time: Array,
    kind: Array,
    price: Array,
    bid: Array,
    ask: Array,
    bid_size: Array,
    ask_size: Array,
    last_size: Array,
    side: Array,
    trade_id: Array,
    sequence: Array,
    values: Array,
    marks: Array,
    first: int,
    capacity_per_event: int,
) -> tuple[int, int]:
    """Takes events from ``first`` on while the output has ``capacity_per_event`` free rows; returns (next event, rows).

    Every row is marked with the index of the event that made it.
    """
    state = State(
        borrowed(rings), borrowed(totals), borrowed(starts), borrowed(hours), borrowed(averages), borrowed(latest),
        borrowed(clocks), borrowed(trade_ids), windows, ring_length, trades, every_second, leader,
        borrowed(values), borrowed(marks),
    )  # fmt: skip
    # without the conversions numba would compile all functions again, for 8-bit kinds and a literal 0
    rows: int = int64(0)
    last_start = marks.shape[0] - capacity_per_event
    for i in range(first, time.shape[0]):
        if rows > last_start:
            return i, rows
        event = Event(
            products[i], time[i], int64(kind[i]), price[i], bid[i], ask[i], bid_size[i], ask_size[i], last_size[i],
            int64(side[i]), trade_id[i], sequence[i],
        )  # fmt: skip
        made = _process(state, scope, event, rows)
        for row in range(rows, rows + made):
            marks[row, MARK_EVENT] = i
        rows += made
    return time.shape[0], rows
