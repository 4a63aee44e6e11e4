"""The one place where features are computed: ``step`` takes one event of one product, in constant time.

Every sum is kept as a running total per session, and each finished second leaves a copy of the totals in a ring
(a *record*). A window's sum is the difference of two records, so no window and no rate makes a tick dearer. Totals
of floats are kept as an unevaluated pair (high, low) by Knuth's two-sum, which loses nothing that a double can
show: a plain running sum drifts, and 10^8 ticks later its differences are noise.

Sources: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18 (1971);
D. E. Knuth, The Art of Computer Programming, vol. 2, 4.2.2.

Two habits of this file have a reason. Everything compiled is in it, because numba's cache watches only the file of the
function that it compiled. And arrays are passed with a row number rather than sliced: a slice is an object whose
reference count is kept with atomic instructions, and a dozen of them would double the price of a tick. What runs for
every tick is inlined, because an array argument is ten machine words; ``windows`` is a tuple, so that their number is
known when the loops over them are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log1p, nan, sqrt
from typing import Any, Final, TypeVar, cast

from numba import njit

# A record: the totals of a session up to the end of a second.
PRICE: Final = 0
RETURNS: Final = 1  # Σr, pair
SQUARES: Final = 3  # Σr², pair
MOVES: Final = 5  # Σ|P(k) − P(k−1)|, pair
TICKS: Final = 7
QUOTES: Final = 8  # ticks that told both sides of the quote
SPREADS: Final = 9  # Σ(ask − bid), pair
BOOKS: Final = 11  # ticks that told both sizes of a book that was not empty
IMBALANCES: Final = 12  # Σ bid size / (bid size + ask size), pair
SIZES: Final = 14  # Σ trade size, pair
RECORD: Final = 16

# Beside a window's opening record: its volatility and velocity, which only change from second to second.
VOLATILITY: Final = RECORD
VELOCITY: Final = RECORD + 1
OPENING: Final = RECORD + 2

# Integers of a product.
SECOND: Final = 0  # the unfinished second
FIRST_SECOND: Final = 1  # of the session; also the session's id
CLOCK: Final = 2  # the newest event's time, ns
NEWEST: Final = 3  # newest time of a ticker, then of a trade
NEWEST_SEQUENCE: Final = 5  # likewise its sequence
LARGEST_ID: Final = 7  # likewise the largest trade id
RECENT: Final = 9  # likewise how many trade ids were kept
LAST_TRADE: Final = 11  # ns, 0 before the session's first
HOLE_END: Final = 12  # ns, end of the last silence over ``HOLE_NS`` in this session, 0 without one
IN_SESSION: Final = 13
TELLS_SIZES: Final = 14
BACKWARD_RUN: Final = 15
LATE: Final = 16
DUPLICATES: Final = 17
UNPLACED: Final = 18
INVALID: Final = 19
CLOCKS: Final = 20

# Floats of a product: the newest quote, then what the newest ticker and the newest trade told.
LAST_BID: Final = 0
LAST_ASK: Final = 1
CONTENT: Final = 2
CONTENT_SIZE: Final = 6
NEWS: Final = CONTENT + 2 * CONTENT_SIZE

# Columns of an output row, before the features.
OUT_PRICE: Final = 0
OUT_BID: Final = 1
OUT_ASK: Final = 2
OUT_SPREAD: Final = 3
OUT_SPREAD_BPS: Final = 4
OUT_SINCE_TRADE: Final = 5
OUT_GAP: Final = 6
OUT_FEATURES: Final = 7
FAMILY_COUNT: Final = 7

IS_WARM: Final = 1
IS_WHOLE: Final = 2

SECOND_NS: Final = 1_000_000_000
SESSION_GAP_NS: Final = 300 * SECOND_NS
HOLE_NS: Final = 10 * SECOND_NS
REMEMBERED_IDS: Final = 256
CLOCK_SET_BACK_AFTER: Final = 10

TICKER_KIND: Final = 0
TRADES_IGNORED: Final = 0  # profile "ticker"
TRADES_TELL_SIZES: Final = 1  # profile "ticker+trade"
TRADES_ARE_TICKS: Final = 2  # profile "trade"

_SPLIT: Final = 134217729.0  # 2^27 + 1

Array = Any
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiled at its first call, kept on disk; releases the GIL, divides like IEEE 754, reorders nothing."""
    return cast("F", njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """As ``compiled``, and made part of each caller."""
    return cast("F", njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function))


@inlined
def _add(totals: Array, row: int, at: int, value: float) -> None:
    """Adds to the pair at ``at`` without losing the rounding error (Knuth's two-sum)."""
    high = totals[row, at]
    total = high + value
    shifted = total - high
    totals[row, at] = total
    totals[row, at + 1] += (high - (total - shifted)) + (value - shifted)


@compiled
def _product(a: float, b: float) -> tuple[float, float]:
    """a·b as an exact pair (Dekker's product)."""
    p = a * b
    c = _SPLIT * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLIT * b
    b_high = c - (c - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
def _pair_difference(now: Array, i: int, then: Array, j: int, at: int) -> tuple[float, float]:
    """The difference of the pairs at ``at`` of two records, as a pair."""
    a, b = now[i, at], -then[j, at]
    d = a + b
    shifted = d - a
    error = (a - (d - shifted)) + (b - shifted)
    return d, error + (now[i, at + 1] - then[j, at + 1])


@inlined
def _difference(now: Array, i: int, then: Array, j: int, at: int) -> float:
    """The difference of the pairs at ``at`` of two records, rounded."""
    rounded: float = (now[i, at] - then[j, at]) + (now[i, at + 1] - then[j, at + 1])
    return rounded


@compiled
def _deviation(now: Array, i: int, then: Array, j: int, n: int) -> float:
    """Standard deviation (ddof 0) of the n returns between two records: √(Σr²/n − (Σr/n)²), in pairs throughout.

    In plain doubles the difference of the two terms would keep few digits in a steady trend.
    """
    s, s_low = _pair_difference(now, i, then, j, RETURNS)
    q, q_low = _pair_difference(now, i, then, j, SQUARES)
    p, p_low = _product(s, s)
    p_low += 2.0 * s * s_low
    m = p / n
    back, back_low = _product(m, float(n))
    m_low = ((p - back) - back_low + p_low) / n
    d = q - m
    shifted = d - q
    error = (q - (d - shifted)) + (-m - shifted)
    variance = (d + (error + (q_low - m_low))) / n
    deviation: float = sqrt(max(variance, 0.0))
    return deviation


@inlined
def _log_ratio(now: float, then: float) -> float:
    """ln(now / then) to the last digit or two, also for prices that differ in their last digit alone.

    The quotient of two close prices has lost the digits that matter, so it is not formed: ln(a/b) = 2 artanh(z) with
    z = (a − b)/(a + b), by its power series where that is short, else through log1p.
    """
    z = (now - then) / (now + then)
    if abs(z) > 0.01:
        return log1p((now - then) / then)
    q = z * z
    return 2.0 * z * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)))))


@compiled
def _close_second(rings: Array, ring: int, mask: int, totals: Array, clocks: Array, p: int) -> None:
    """Ends the unfinished second: its return joins the totals, and a copy of them becomes its record."""
    second = clocks[p, SECOND]
    if second > clocks[p, FIRST_SECOND]:
        before = rings[ring + ((second - 1) & mask), PRICE]
        price = totals[p, PRICE]
        if price != before:
            r = _log_ratio(price, before)
            square, square_low = _product(r, r)
            _add(totals, p, RETURNS, r)
            _add(totals, p, SQUARES, square)
            totals[p, SQUARES + 1] += square_low
            _add(totals, p, MOVES, abs(price - before))
    record = ring + (second & mask)
    for column in range(RECORD):
        rings[record, column] = totals[p, column]
    clocks[p, SECOND] = second + 1


@compiled
def _open_windows(
    rings: Array, ring: int, mask: int, openings: Array, opening: int, windows: Array, clocks: Array, p: int
) -> None:
    """For the second that begins: each warm window's opening record, its volatility and its velocity."""
    second = clocks[p, SECOND]
    newest = ring + ((second - 1) & mask)
    for w in range(len(windows)):
        window = windows[w]
        if second - clocks[p, FIRST_SECOND] <= window:
            break
        record = ring + ((second - window) & mask)
        for column in range(RECORD):
            openings[opening + w, column] = rings[record, column]
        before = ring + ((second - window - 1) & mask)
        openings[opening + w, VOLATILITY] = _deviation(rings, newest, rings, before, window)
        openings[opening + w, VELOCITY] = _difference(rings, newest, rings, before, MOVES) / window


@inlined
def _write_window(
    values: Array,
    row: int,
    at: int,
    count: int,
    now: Array,
    i: int,
    then: Array,
    j: int,
    volatility: float,
    velocity: float,
    tells_sizes: bool,
) -> None:
    """The seven families of one window, ``count`` columns apart."""
    quotes = now[i, QUOTES] - then[j, QUOTES]
    books = now[i, BOOKS] - then[j, BOOKS]
    values[row, at] = _log_ratio(now[i, PRICE], then[j, PRICE])
    values[row, at + count] = volatility
    values[row, at + 2 * count] = velocity
    values[row, at + 3 * count] = _difference(now, i, then, j, SPREADS) / quotes if quotes > 0.0 else nan
    values[row, at + 4 * count] = _difference(now, i, then, j, IMBALANCES) / books if books > 0.0 else nan
    values[row, at + 5 * count] = now[i, TICKS] - then[j, TICKS]
    values[row, at + 6 * count] = _difference(now, i, then, j, SIZES) if tells_sizes else nan


@inlined
def _write_cold_window(values: Array, row: int, at: int, count: int) -> None:
    for family in range(FAMILY_COUNT):
        values[row, at + family * count] = nan


@inlined
def _write_quote(values: Array, row: int, price: float, bid: float, ask: float) -> None:
    values[row, OUT_PRICE] = price
    values[row, OUT_BID] = bid
    values[row, OUT_ASK] = ask
    values[row, OUT_SPREAD] = ask - bid
    values[row, OUT_SPREAD_BPS] = (ask - bid) / (0.5 * (ask + bid)) * 1e4


@inlined
def _mark(marks: Array, row: int, clocks: Array, p: int, now: int, warm: bool, longest: int) -> None:
    """Time, session, flags and product of a row."""
    whole = now - clocks[p, CLOCK] <= HOLE_NS and now - clocks[p, HOLE_END] > longest * SECOND_NS
    marks[row, 0] = now
    marks[row, 1] = clocks[p, FIRST_SECOND]
    marks[row, 2] = (IS_WARM if warm else 0) | (IS_WHOLE if whole else 0)
    marks[row, 3] = p


@compiled
def _emit_second(
    rings: Array,
    ring: int,
    mask: int,
    totals: Array,
    news: Array,
    clocks: Array,
    windows: Array,
    p: int,
    values: Array,
    marks: Array,
    row: int,
) -> None:
    """The row at the end of the second that was closed last."""
    second = clocks[p, SECOND] - 1
    now = (second + 1) * SECOND_NS
    count = len(windows)
    tells_sizes = clocks[p, TELLS_SIZES] != 0
    for w in range(count):
        window = windows[w]
        at = OUT_FEATURES + w
        if second - clocks[p, FIRST_SECOND] >= window:
            then = ring + ((second - window) & mask)
            volatility = _deviation(totals, p, rings, then, window)
            velocity = _difference(totals, p, rings, then, MOVES) / window
            _write_window(values, row, at, count, totals, p, rings, then, volatility, velocity, tells_sizes)
        else:
            _write_cold_window(values, row, at, count)
    _write_quote(values, row, totals[p, PRICE], news[p, LAST_BID], news[p, LAST_ASK])
    traded = clocks[p, LAST_TRADE]
    values[row, OUT_SINCE_TRADE] = (now - traded) / 1e9 if traded > 0 else nan
    values[row, OUT_GAP] = (now - clocks[p, CLOCK]) / 1e9
    longest = windows[count - 1]
    _mark(marks, row, clocks, p, now, second - clocks[p, FIRST_SECOND] >= longest, longest)


@inlined
def _emit_tick(
    totals: Array,
    openings: Array,
    opening: int,
    news: Array,
    clocks: Array,
    windows: Array,
    p: int,
    values: Array,
    marks: Array,
    row: int,
) -> None:
    """The row at the tick that was just added, except what was silent before it (written by ``step``)."""
    since = clocks[p, SECOND] - clocks[p, FIRST_SECOND]
    count = len(windows)
    tells_sizes = clocks[p, TELLS_SIZES] != 0
    for w in range(count):
        at = OUT_FEATURES + w
        if since > windows[w]:
            then = opening + w
            volatility, velocity = openings[then, VOLATILITY], openings[then, VELOCITY]
            _write_window(values, row, at, count, totals, p, openings, then, volatility, velocity, tells_sizes)
        else:
            _write_cold_window(values, row, at, count)
    _write_quote(values, row, totals[p, PRICE], news[p, LAST_BID], news[p, LAST_ASK])
    longest = windows[count - 1]
    _mark(marks, row, clocks, p, clocks[p, CLOCK], since > longest, longest)


@inlined
def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)  # noqa: PLR0124  NaN is the value that is not itself


@compiled
def _is_duplicate(
    news: Array,
    clocks: Array,
    ids: Array,
    p: int,
    kind: int,
    time: int,
    price: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    last_size: float,
    trade_id: int,
    sequence: int,
) -> bool:
    """An event told before: its trade id is among the remembered ones, or, without an id, all it told is the same."""
    if trade_id >= 0:
        if trade_id > clocks[p, LARGEST_ID + kind]:
            return False
        for i in range(min(clocks[p, RECENT + kind], REMEMBERED_IDS)):
            if ids[p, kind, i] == trade_id:
                return True
        return False
    at = CONTENT + kind * CONTENT_SIZE
    return (
        time == clocks[p, NEWEST + kind]
        and sequence == clocks[p, NEWEST_SEQUENCE + kind]
        and price == news[p, at]
        and _same(bid, news[p, at + 1])
        and _same(ask, news[p, at + 2])
        and _same(bid_size, news[p, at + 3])
        and _same(ask_size, news[p, at + 4])
        and _same(last_size, news[p, at + 5])
    )


@compiled
def _is_late(clocks: Array, p: int, kind: int, time: int) -> bool:
    """Older than the newest of its kind, unless the exchange's clock was set back.

    One tick stamped far in the future must not make everything after it late for ever: when
    ``CLOCK_SET_BACK_AFTER`` events in a row are older by more than a session's gap, the newer time was the wrong one.
    """
    if time >= clocks[p, NEWEST + kind]:
        return False
    if clocks[p, NEWEST + kind] - time <= SESSION_GAP_NS:
        return True
    clocks[p, BACKWARD_RUN] += 1
    if clocks[p, BACKWARD_RUN] < CLOCK_SET_BACK_AFTER:
        return True
    clocks[p, NEWEST] = time
    clocks[p, NEWEST + 1] = time
    clocks[p, CLOCK] = 0
    clocks[p, IN_SESSION] = 0
    return False


@inlined
def _remember(
    news: Array,
    clocks: Array,
    ids: Array,
    p: int,
    kind: int,
    time: int,
    price: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    last_size: float,
    trade_id: int,
    sequence: int,
) -> None:
    clocks[p, BACKWARD_RUN] = 0
    clocks[p, NEWEST + kind] = time
    clocks[p, NEWEST_SEQUENCE + kind] = sequence
    at = CONTENT + kind * CONTENT_SIZE
    news[p, at] = price
    news[p, at + 1] = bid
    news[p, at + 2] = ask
    news[p, at + 3] = bid_size
    news[p, at + 4] = ask_size
    news[p, at + 5] = last_size
    if trade_id >= 0:
        ids[p, kind, clocks[p, RECENT + kind] & (REMEMBERED_IDS - 1)] = trade_id
        clocks[p, RECENT + kind] += 1
        clocks[p, LARGEST_ID + kind] = max(clocks[p, LARGEST_ID + kind], trade_id)


@inlined
def _is_admitted(
    news: Array,
    clocks: Array,
    ids: Array,
    p: int,
    kind: int,
    time: int,
    price: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    last_size: float,
    trade_id: int,
    sequence: int,
) -> bool:
    """Whether an event is valid, new and in order; if so it is remembered, if not it is counted."""
    if not 0.0 < price < inf:
        clocks[p, INVALID] += 1
        return False
    is_news = time > clocks[p, NEWEST + kind] and (trade_id < 0 or trade_id > clocks[p, LARGEST_ID + kind])
    if not is_news:
        if _is_duplicate(
            news, clocks, ids, p, kind, time, price, bid, ask, bid_size, ask_size, last_size, trade_id, sequence
        ):
            clocks[p, DUPLICATES] += 1
            return False
        if _is_late(clocks, p, kind, time):
            clocks[p, LATE] += 1
            return False
    _remember(news, clocks, ids, p, kind, time, price, bid, ask, bid_size, ask_size, last_size, trade_id, sequence)
    return True


@compiled
def _begin_session(totals: Array, clocks: Array, p: int, now: int, trades: int) -> None:
    for column in range(RECORD):
        totals[p, column] = 0.0
    clocks[p, SECOND] = now // SECOND_NS
    clocks[p, FIRST_SECOND] = now // SECOND_NS
    clocks[p, LAST_TRADE] = 0
    clocks[p, HOLE_END] = 0
    clocks[p, IN_SESSION] = 1
    clocks[p, TELLS_SIZES] = 0 if trades == TRADES_IGNORED else 1


@inlined
def _add_tick(
    totals: Array, news: Array, p: int, price: float, bid: float, ask: float, bid_size: float, ask_size: float
) -> None:
    totals[p, PRICE] = price
    totals[p, TICKS] += 1.0
    spread = ask - bid
    if abs(spread) < inf:
        totals[p, QUOTES] += 1.0
        _add(totals, p, SPREADS, spread)
    resting = bid_size + ask_size
    if 0.0 < resting < inf:
        totals[p, BOOKS] += 1.0
        _add(totals, p, IMBALANCES, bid_size / resting)
    news[p, LAST_BID] = bid
    news[p, LAST_ASK] = ask


@inlined
def step(
    rings: Array,
    totals: Array,
    openings: Array,
    news: Array,
    clocks: Array,
    ids: Array,
    windows: Array,
    ring_length: int,
    trades: int,
    every_second: bool,
    p: int,
    time: int,
    kind: int,
    price: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    last_size: float,
    trade_id: int,
    sequence: int,
    values: Array,
    marks: Array,
    row: int,
) -> int:
    """Takes one event of product ``p`` and writes the rows it makes from ``row`` on; returns how many.

    With a row per tick an event makes at most one. With a row per second it makes one for every second that it shows
    to be over: at most ``SESSION_GAP_NS`` of them and one. The state arrays are described in ``state``.
    """
    if kind != TICKER_KIND and trades == TRADES_IGNORED:
        return 0
    if not _is_admitted(
        news, clocks, ids, p, kind, time, price, bid, ask, bid_size, ask_size, last_size, trade_id, sequence
    ):
        return 0
    ring, mask = p * ring_length, ring_length - 1
    is_tick = kind == TICKER_KIND or trades == TRADES_ARE_TICKS
    before = clocks[p, CLOCK]
    now = max(time, before)
    silent_from = before
    rows = 0
    if clocks[p, IN_SESSION] == 0 or now - before > SESSION_GAP_NS:
        if not is_tick:
            clocks[p, UNPLACED] += 1
            return 0
        if clocks[p, IN_SESSION] != 0 and every_second:
            _close_second(rings, ring, mask, totals, clocks, p)
            _emit_second(rings, ring, mask, totals, news, clocks, windows, p, values, marks, row)
            rows = 1
        _begin_session(totals, clocks, p, now, trades)
        silent_from = now

    second = now // SECOND_NS
    if second > clocks[p, SECOND]:
        while clocks[p, SECOND] < second:
            _close_second(rings, ring, mask, totals, clocks, p)
            if every_second:
                _emit_second(rings, ring, mask, totals, news, clocks, windows, p, values, marks, row + rows)
                rows += 1
        if not every_second:
            _open_windows(rings, ring, mask, openings, p * len(windows), windows, clocks, p)

    if now - silent_from > HOLE_NS:
        clocks[p, HOLE_END] = now
    clocks[p, CLOCK] = now
    traded_before = clocks[p, LAST_TRADE]
    if abs(last_size) < inf:
        clocks[p, LAST_TRADE] = now
        if not is_tick or trades != TRADES_TELL_SIZES:
            _add(totals, p, SIZES, last_size)
            clocks[p, TELLS_SIZES] = 1
    if not is_tick:
        return rows
    _add_tick(totals, news, p, price, bid, ask, bid_size, ask_size)
    if every_second:
        return rows
    _emit_tick(totals, openings, p * len(windows), news, clocks, windows, p, values, marks, row)
    values[row, OUT_SINCE_TRADE] = (now - traded_before) / 1e9 if traded_before > 0 else nan
    values[row, OUT_GAP] = (now - before) / 1e9 if before > 0 else nan
    return 1


@compiled
def run(
    rings: Array,
    totals: Array,
    openings: Array,
    news: Array,
    clocks: Array,
    ids: Array,
    windows: Array,
    ring_length: int,
    trades: int,
    every_second: bool,
    first: int,
    products: Array,
    time: Array,
    kind: Array,
    price: Array,
    bid: Array,
    ask: Array,
    bid_size: Array,
    ask_size: Array,
    last_size: Array,
    trade_id: Array,
    sequence: Array,
    values: Array,
    marks: Array,
    room: int,
) -> tuple[int, int]:
    """Steps through events ``first`` on until the output has not ``room`` rows left; returns (next event, rows)."""
    rows = 0
    last_start = marks.shape[0] - room
    for i in range(first, time.shape[0]):
        if rows > last_start:
            return i, rows
        rows += step(
            rings,
            totals,
            openings,
            news,
            clocks,
            ids,
            windows,
            ring_length,
            trades,
            every_second,
            products[i],
            time[i],
            kind[i],
            price[i],
            bid[i],
            ask[i],
            bid_size[i],
            ask_size[i],
            last_size[i],
            trade_id[i],
            sequence[i],
            values,
            marks,
            rows,
        )
    return time.shape[0], rows
