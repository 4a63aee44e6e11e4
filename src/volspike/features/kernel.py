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
known when the loops over them are compiled. ``scope`` is a tuple for the same reason: empty, of one or of two, it says
at compile time whether the features of ``catalogue`` are wanted, and the lags: nobody pays for what is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, exp, inf, log, log1p, nan, pi, sin, sqrt
from typing import Any, Final, TypeVar, cast

from numba import int64, njit

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

# A long record, kept for an hour: the first columns of a record, and its ticks.
HOUR_TICKS: Final = 5
HOUR_RECORD: Final = 6
HOUR_LENGTH: Final = 4096  # seconds, a power of two
_HOUR_MASK: Final = HOUR_LENGTH - 1

# What is weighted exponentially, second by second; each with every half-life.
X_RETURN: Final = 0
X_SQUARE: Final = 1
X_NEIGHBOURS: Final = 2  # r(k) r(k−1)
X_BIPOWER: Final = 3  # |r(k) r(k−1)|
X_UP: Final = 4  # r² of rises
X_DOWN: Final = 5  # r² of falls
X_MOVED: Final = 6
X_SPARSE: Final = 7  # squared returns over each of SPARSE seconds
X_TICKS: Final = 10
X_SIZE: Final = 11
X_SIDED: Final = 12
X_SIGNED: Final = 13
X_ORDER_FLOW: Final = 14
X_DEPTH: Final = 15
X_BOOKS: Final = 16
X_SPREAD: Final = 17
X_QUOTES: Final = 18
WEIGHED: Final = 19

HALF_LIVES: Final = (10, 30, 60, 300, 600, 1800)
_HALVES: Final = len(HALF_LIVES)
_DECAYS: Final = tuple(0.5 ** (1.0 / half_life) for half_life in HALF_LIVES)
_H10, _, _H60, _H300, _, _HOUR = range(_HALVES)
SPARSE: Final = (10, 30, 60)
_LN2: Final = log(2.0)
_BEATS: Final = (1.0, 10.0, 60.0)  # half-lives of the decaying intensities, in seconds
LAGS: Final = 60
_NOTHING: Final = 1e-200  # what decayed further has too few digits to be divided by

# The bank of a product: the weighted means, the sums of their weights, what the unfinished second gathers, the columns
# that rows of a second share.
WEIGHTS: Final = WEIGHED * _HALVES
NEWS_OF_SECOND: Final = WEIGHTS + _HALVES  # in the order of the means
LAST_RETURN: Final = NEWS_OF_SECOND + WEIGHED
BEATS: Final = LAST_RETURN + 1
TOUCH: Final = BEATS + 3  # bid, ask and their sizes as the newest full quote told them
NOW_SIZES: Final = TOUCH + 4  # bid and ask size of the newest tick
CACHED: Final = NOW_SIZES + 2

AT_TICK_COUNT: Final = 9
BY_SECOND_COUNT: Final = 70
LEADER_COUNT: Final = 2
BANK: Final = CACHED + BY_SECOND_COUNT + LEADER_COUNT + 2 * LAGS
NO_LEADER: Final = -2
UNMET_LEADER: Final = -1

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
TICKED: Final = 20  # ns, the newest tick
FORMER_FIRST: Final = 21  # first second of the session before this one
FORMER_CLOCK: Final = 22  # ns, its newest event; 0 without one
CLOCKS: Final = 23

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

# A row's integers are its time, session, flags and product; ``run`` adds the index of the event that made it.
MARK_EVENT: Final = 4
MARKS: Final = 5

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


@inlined
def _add_return(records: Array, row: int, price: float, then: float) -> float:
    """The log return from ``then`` to ``price``, after it has joined a record's Σr and Σr²."""
    if price == then:
        return 0.0
    r = _log_ratio(price, then)
    square, square_low = _product(r, r)
    _add(records, row, RETURNS, r)
    _add(records, row, SQUARES, square)
    records[row, SQUARES + 1] += square_low
    return r


@compiled
def _gather_second(
    rings: Array, before: int, totals: Array, hours: Array, bank: Array, clocks: Array, p: int, r: float
) -> None:
    """What the second that ends told, beside what its ticks have gathered; ``before`` is the last second's record."""
    second, hour, x = clocks[p, SECOND], p * HOUR_LENGTH, NEWS_OF_SECOND
    last, square = bank[p, LAST_RETURN], r * r
    bank[p, x + X_RETURN] = r
    bank[p, x + X_SQUARE] = square
    bank[p, x + X_NEIGHBOURS] = r * last
    bank[p, x + X_BIPOWER] = abs(r * last)
    bank[p, x + X_UP] = square if r > 0.0 else 0.0
    bank[p, x + X_DOWN] = square if r < 0.0 else 0.0
    bank[p, x + X_MOVED] = 1.0 if r != 0.0 else 0.0
    for i in range(len(SPARSE)):
        then = max(second - SPARSE[i], clocks[p, FIRST_SECOND])
        over = _log_ratio(totals[p, PRICE], hours[hour + (then & _HOUR_MASK), PRICE])
        bank[p, x + X_SPARSE + i] = over * over
    bank[p, x + X_TICKS] = totals[p, TICKS] - rings[before, TICKS]
    bank[p, x + X_SIZE] = _difference(totals, p, rings, before, SIZES)
    bank[p, x + X_SPREAD] = _difference(totals, p, rings, before, SPREADS)
    bank[p, x + X_QUOTES] = totals[p, QUOTES] - rings[before, QUOTES]
    bank[p, LAST_RETURN] = r


@compiled
def _weigh_second(bank: Array, p: int) -> None:
    """Moves every exponentially weighted mean by what the second gathered.

    The mean itself is kept, not the sum of which it is a quotient. Both terms round upwards with what they are made of,
    so that a part never outgrows the whole by a rounding.
    """
    for h in range(_HALVES):
        weight = bank[p, WEIGHTS + h] * _DECAYS[h] + 1.0
        bank[p, WEIGHTS + h] = weight
        new = 1.0 / weight
        old = 1.0 - new
        for i in range(WEIGHED):
            at = h * WEIGHED + i
            bank[p, at] = bank[p, at] * old + bank[p, NEWS_OF_SECOND + i] * new


@compiled
def _remember_second(totals: Array, hours: Array, clocks: Array, p: int) -> int:
    """Writes the unfinished second's long record as the totals stand; returns its row."""
    record: int = p * HOUR_LENGTH + (clocks[p, SECOND] & _HOUR_MASK)
    for column in range(HOUR_TICKS):
        hours[record, column] = totals[p, column]
    hours[record, HOUR_TICKS] = totals[p, TICKS]
    return record


@compiled
def _foretell_second(totals: Array, hours: Array, clocks: Array, p: int) -> None:
    """Writes the unfinished second's long record as if it ended now; when it does it is written once more."""
    record, second = _remember_second(totals, hours, clocks, p), clocks[p, SECOND]
    if second > clocks[p, FIRST_SECOND]:
        before = p * HOUR_LENGTH + ((second - 1) & _HOUR_MASK)
        _add_return(hours, record, totals[p, PRICE], hours[before, PRICE])


@compiled
def _close_second(
    rings: Array,
    ring: int,
    mask: int,
    totals: Array,
    hours: Array,
    bank: Array,
    clocks: Array,
    scope: Array,
    p: int,
) -> None:
    """Ends the unfinished second: its return joins the totals, and a copy of them becomes its record."""
    second = clocks[p, SECOND]
    if second > clocks[p, FIRST_SECOND]:
        before = ring + ((second - 1) & mask)
        then, price = rings[before, PRICE], totals[p, PRICE]
        r = _add_return(totals, p, price, then)
        if r != 0.0:
            _add(totals, p, MOVES, abs(price - then))
        if len(scope) > 0:
            _gather_second(rings, before, totals, hours, bank, clocks, p, r)
            _weigh_second(bank, p)
    if len(scope) > 0:
        _remember_second(totals, hours, clocks, p)
        for i in range(WEIGHED):
            bank[p, NEWS_OF_SECOND + i] = 0.0
    record = ring + (second & mask)
    for column in range(RECORD):
        rings[record, column] = totals[p, column]
    clocks[p, SECOND] = second + 1


@inlined
def _ratio(part: float, whole: float) -> float:
    """Their quotient, NaN of nothing."""
    return part / whole if whole > _NOTHING else nan


@compiled
def _volatility_of(hours: Array, hour: int, newest: int, first: int, window: int) -> float:
    """Volatility of the last ``window`` returns up to second ``newest``, or of as many as there are since ``first``."""
    n = min(window, newest - first)
    return _deviation(hours, hour + (newest & _HOUR_MASK), hours, hour + ((newest - n) & _HOUR_MASK), n)


@compiled
def _write_volatilities(at: int, hours: Array, bank: Array, clocks: Array, p: int) -> int:
    hour, newest, first = p * HOUR_LENGTH, clocks[p, SECOND] - 1, clocks[p, FIRST_SECOND]
    for i, window in enumerate((10, 900, 3600)):
        bank[p, at + i] = _volatility_of(hours, hour, newest, first, window)
    of_hour = bank[p, at + 2]
    bank[p, at + 3] = _ratio(bank[p, at], of_hour)
    for i, window in enumerate((30, 60, 300)):
        bank[p, at + 4 + i] = _ratio(_volatility_of(hours, hour, newest, first, window), of_hour)
    bank[p, at + 7] = _ratio(bank[p, at + 1], of_hour)
    for h in range(_HALVES):
        bank[p, at + 8 + h] = sqrt(bank[p, h * WEIGHED + X_SQUARE])
    for i, h in enumerate((_H10, _H60, _H300)):
        bank[p, at + 14 + i] = _ratio(bank[p, at + 8 + h], bank[p, at + 8 + _HOUR])
    return at + 17


@compiled
def _write_parts_of_variance(at: int, bank: Array, p: int) -> int:
    for i, h in enumerate((_H60, _H300, _HOUR)):
        means = h * WEIGHED
        continuous, whole = 0.5 * pi * bank[p, means + X_BIPOWER], bank[p, means + X_SQUARE]
        bank[p, at + i] = sqrt(continuous)
        # max(NaN, 0) is NaN and max(0, NaN) were 0: where nothing moved there is no share
        bank[p, at + 3 + i] = max(1.0 - _ratio(continuous, whole), 0.0)
        bank[p, at + 10 + i] = _ratio(bank[p, means + X_UP] - bank[p, means + X_DOWN], whole)
    for i, h in enumerate((_H60, _H300)):
        bank[p, at + 6 + i] = sqrt(bank[p, h * WEIGHED + X_UP])
        bank[p, at + 8 + i] = sqrt(bank[p, h * WEIGHED + X_DOWN])
    return at + 13


@compiled
def _write_paths(at: int, bank: Array, p: int) -> int:
    for h in range(_HOUR):
        trend = _ratio(bank[p, h * WEIGHED + X_RETURN], sqrt(bank[p, h * WEIGHED + X_SQUARE]))
        bank[p, at + h] = trend
        bank[p, at + 5 + h] = abs(trend)
    for i, h in enumerate((_H10, _H60, _HOUR)):
        bank[p, at + 10 + i] = _ratio(bank[p, h * WEIGHED + X_NEIGHBOURS], bank[p, h * WEIGHED + X_SQUARE])
    minute, minutes = _H60 * WEIGHED, _H300 * WEIGHED
    for i in range(len(SPARSE)):
        bank[p, at + 13 + i] = sqrt(bank[p, minute + X_SPARSE + i] / SPARSE[i])
        ratio = _ratio(bank[p, minutes + X_SPARSE + i], bank[p, minutes + X_SQUARE])
        bank[p, at + 16 + i] = ratio / SPARSE[i]
    bank[p, at + 19] = bank[p, minute + X_MOVED]
    bank[p, at + 20] = bank[p, _HOUR * WEIGHED + X_MOVED]
    return at + 21


@compiled
def _write_flows(at: int, bank: Array, p: int) -> int:
    minute, hour = _H60 * WEIGHED, _HOUR * WEIGHED
    for i, h in enumerate((_H10, _H60, _H300)):
        means = h * WEIGHED
        bank[p, at + i] = _ratio(bank[p, means + X_SIZE], bank[p, hour + X_SIZE])
        bank[p, at + 7 + i] = _ratio(bank[p, means + X_TICKS], bank[p, hour + X_TICKS])
        depth = _ratio(bank[p, means + X_DEPTH], bank[p, means + X_BOOKS])
        bank[p, at + 10 + i] = _ratio(bank[p, means + X_ORDER_FLOW], depth)
    for i, h in enumerate((_H10, _H60, _H300, _HOUR)):
        bank[p, at + 3 + i] = _ratio(bank[p, h * WEIGHED + X_SIGNED], bank[p, h * WEIGHED + X_SIDED])
    spread = _ratio(bank[p, minute + X_SPREAD], bank[p, minute + X_QUOTES])
    bank[p, at + 13] = _ratio(spread, _ratio(bank[p, hour + X_SPREAD], bank[p, hour + X_QUOTES]))
    return at + 14


@compiled
def _write_clock(at: int, bank: Array, p: int, second: int) -> int:
    """Where the end of the newest finished second lies in its day and hour; ``second`` is the one after it."""
    phase = 2.0 * pi * (second % 86_400) / 86_400.0
    bank[p, at] = sin(phase)
    bank[p, at + 1] = cos(phase)
    for i, span in enumerate((300, 900, 3600)):
        bank[p, at + 2 + i] = float(span - second % span)
    return at + 5


@compiled
def _write_leader(at: int, totals: Array, hours: Array, bank: Array, clocks: Array, p: int, leader: int) -> int:
    """The leading product's volatility at the product's newest finished second; NaN while it is not known.

    The leader's own clock may stand behind that second or, where silent seconds are told late, beyond it, even in
    another session. Behind, its price is carried to that second, as its own rows will once they are made.
    """
    bank[p, at] = nan
    bank[p, at + 1] = nan
    if leader == UNMET_LEADER or clocks[leader, IN_SESSION] == 0:
        return at + LEADER_COUNT
    newest, last = clocks[p, SECOND] - 1, clocks[leader, SECOND]
    first, clock = clocks[leader, FIRST_SECOND], clocks[leader, CLOCK]
    kept = HOUR_LENGTH - 1 - (last - newest)
    if newest < first:
        first, clock = clocks[leader, FORMER_FIRST], clocks[leader, FORMER_CLOCK]
        last = clock // SECOND_NS
    elif newest >= last:
        _foretell_second(totals, hours, clocks, leader)
    known = min(newest - first, kept, 3600)
    if known < 60 or (newest + 1) * SECOND_NS - clock > SESSION_GAP_NS:
        return at + LEADER_COUNT
    hour = leader * HOUR_LENGTH
    now = hour + (min(newest, last) & _HOUR_MASK)
    minute = _deviation(hours, now, hours, hour + (min(newest - 60, last) & _HOUR_MASK), 60)
    bank[p, at] = minute
    of_hour = _deviation(hours, now, hours, hour + (min(newest - known, last) & _HOUR_MASK), known)
    bank[p, at + 1] = _ratio(minute, of_hour)
    return at + LEADER_COUNT


@compiled
def _write_lags(at: int, hours: Array, bank: Array, clocks: Array, p: int) -> None:
    hour, newest = p * HOUR_LENGTH, clocks[p, SECOND] - 1
    for j in range(LAGS):
        now, then = hour + ((newest - j) & _HOUR_MASK), hour + ((newest - j - 1) & _HOUR_MASK)
        bank[p, at + j] = _log_ratio(hours[now, PRICE], hours[then, PRICE])
        bank[p, at + LAGS + j] = hours[now, HOUR_TICKS] - hours[then, HOUR_TICKS]


@compiled
def _renew_columns(totals: Array, hours: Array, bank: Array, clocks: Array, scope: Array, p: int, leader: int) -> None:
    """The columns that change only from second to second, as of the newest finished one."""
    at = _write_volatilities(CACHED, hours, bank, clocks, p)
    at = _write_parts_of_variance(at, bank, p)
    at = _write_paths(at, bank, p)
    at = _write_flows(at, bank, p)
    at = _write_clock(at, bank, p, clocks[p, SECOND])
    if leader != NO_LEADER:
        at = _write_leader(at, totals, hours, bank, clocks, p, leader)
    if len(scope) > 1:
        _write_lags(at, hours, bank, clocks, p)


@inlined
def _fade(bank: Array, clocks: Array, p: int, now: int) -> tuple[float, float, float]:
    """The decaying intensities at ``now``: one exponential, for the longest half-life; the others are powers of it."""
    by_minute = exp((clocks[p, TICKED] - now) * (_LN2 / (_BEATS[2] * SECOND_NS)))
    cube = by_minute * by_minute * by_minute
    by_ten = cube * cube  # 60 s / 10 s = 6
    square = by_ten * by_ten
    by_one = square * square * square * square * square  # 10 s / 1 s = 10
    return bank[p, BEATS] * by_one, bank[p, BEATS + 1] * by_ten, bank[p, BEATS + 2] * by_minute


@inlined
def _write_added(
    values: Array, row: int, at: int, bank: Array, news: Array, p: int, beats: tuple[float, float, float]
) -> None:
    """The features of ``catalogue``: of the intensities ``beats`` and the newest tick's quote, then of the second."""
    hour = _HOUR * WEIGHED
    for i in range(len(_BEATS)):
        values[row, at + i] = beats[i]
        values[row, at + 3 + i] = _ratio(beats[i], bank[p, hour + X_TICKS])
    bid, ask = news[p, LAST_BID], news[p, LAST_ASK]
    bid_size, ask_size = bank[p, NOW_SIZES], bank[p, NOW_SIZES + 1]
    middle, resting = 0.5 * (bid + ask), bid_size + ask_size
    balance = (bid * ask_size + ask * bid_size) / resting if 0.0 < resting < inf else nan
    values[row, at + 6] = (balance - middle) / middle * 1e4
    values[row, at + 7] = (ask - bid) / middle * 1e4
    values[row, at + 8] = _ratio(ask - bid, _ratio(bank[p, hour + X_SPREAD], bank[p, hour + X_QUOTES]))
    at += AT_TICK_COUNT
    for column in range(values.shape[1] - at):
        values[row, at + column] = bank[p, CACHED + column]


@inlined
def _add_flow(
    bank: Array, clocks: Array, p: int, now: int, bid: float, ask: float, bid_size: float, ask_size: float
) -> None:
    """A tick's beat, and its order flow e_n by Cont, Kukanov and Stoikov (2014), equation 1."""
    beats = _fade(bank, clocks, p, now)
    for i in range(len(_BEATS)):
        bank[p, BEATS + i] = beats[i] + _LN2 / _BEATS[i]
    clocks[p, TICKED] = now
    bank[p, NOW_SIZES] = bid_size
    bank[p, NOW_SIZES + 1] = ask_size
    resting = bid_size + ask_size
    if not (0.0 < resting < inf and 0.0 < bid < inf and 0.0 < ask < inf):
        return
    if bank[p, TOUCH] > 0.0:
        flow = 0.0
        if bid >= bank[p, TOUCH]:
            flow += bid_size
        if bid <= bank[p, TOUCH]:
            flow -= bank[p, TOUCH + 2]
        if ask <= bank[p, TOUCH + 1]:
            flow -= ask_size
        if ask >= bank[p, TOUCH + 1]:
            flow += bank[p, TOUCH + 3]
        bank[p, NEWS_OF_SECOND + X_ORDER_FLOW] += flow
    bank[p, TOUCH] = bid
    bank[p, TOUCH + 1] = ask
    bank[p, TOUCH + 2] = bid_size
    bank[p, TOUCH + 3] = ask_size
    bank[p, NEWS_OF_SECOND + X_DEPTH] += 0.5 * resting
    bank[p, NEWS_OF_SECOND + X_BOOKS] += 1.0


@compiled
def _open_windows(
    rings: Array,
    ring: int,
    mask: int,
    openings: Array,
    opening: int,
    totals: Array,
    hours: Array,
    bank: Array,
    windows: Array,
    clocks: Array,
    scope: Array,
    p: int,
    leader: int,
) -> None:
    """For the second that begins: each warm window's opening record, volatility and velocity, and what rows share."""
    second = clocks[p, SECOND]
    newest = ring + ((second - 1) & mask)
    for w in range(len(windows)):
        window = windows[w]
        if second - clocks[p, FIRST_SECOND] <= window:
            return
        record = ring + ((second - window) & mask)
        for column in range(RECORD):
            openings[opening + w, column] = rings[record, column]
        before = ring + ((second - window - 1) & mask)
        openings[opening + w, VOLATILITY] = _deviation(rings, newest, rings, before, window)
        openings[opening + w, VELOCITY] = _difference(rings, newest, rings, before, MOVES) / window
    if len(scope) > 0:
        _renew_columns(totals, hours, bank, clocks, scope, p, leader)


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
def _write_nothing(values: Array, row: int, at: int) -> None:
    for column in range(at, values.shape[1]):
        values[row, column] = nan


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
    hours: Array,
    bank: Array,
    news: Array,
    clocks: Array,
    windows: Array,
    scope: Array,
    p: int,
    leader: int,
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
    warm = second - clocks[p, FIRST_SECOND] >= longest
    if len(scope) > 0:
        at = OUT_FEATURES + FAMILY_COUNT * count
        if warm:
            _renew_columns(totals, hours, bank, clocks, scope, p, leader)
            _write_added(values, row, at, bank, news, p, _fade(bank, clocks, p, now))
        else:
            _write_nothing(values, row, at)
    _mark(marks, row, clocks, p, now, warm, longest)


@inlined
def _emit_tick(
    totals: Array,
    openings: Array,
    opening: int,
    bank: Array,
    news: Array,
    clocks: Array,
    windows: Array,
    scope: Array,
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
    if len(scope) > 0:
        at = OUT_FEATURES + FAMILY_COUNT * count
        if since > longest:
            beats = bank[p, BEATS], bank[p, BEATS + 1], bank[p, BEATS + 2]
            _write_added(values, row, at, bank, news, p, beats)
        else:
            _write_nothing(values, row, at)
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
def _begin_session(
    totals: Array, hours: Array, bank: Array, clocks: Array, scope: Array, p: int, now: int, trades: int
) -> None:
    if len(scope) > 0 and clocks[p, IN_SESSION] != 0:
        _foretell_second(totals, hours, clocks, p)
    clocks[p, FORMER_FIRST] = clocks[p, FIRST_SECOND]
    clocks[p, FORMER_CLOCK] = clocks[p, CLOCK]
    for column in range(RECORD):
        totals[p, column] = 0.0
    for column in range(bank.shape[1]):
        bank[p, column] = 0.0
    clocks[p, TICKED] = now
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
    hours: Array,
    bank: Array,
    news: Array,
    clocks: Array,
    ids: Array,
    windows: Array,
    scope: Array,
    ring_length: int,
    trades: int,
    every_second: bool,
    leader: int,
    p: int,
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
            _close_second(rings, ring, mask, totals, hours, bank, clocks, scope, p)
            _emit_second(
                rings, ring, mask, totals, hours, bank, news, clocks, windows, scope, p, leader, values, marks, row
            )
            rows = 1
        _begin_session(totals, hours, bank, clocks, scope, p, now, trades)
        silent_from = now

    second = now // SECOND_NS
    if second > clocks[p, SECOND]:
        while clocks[p, SECOND] < second:
            _close_second(rings, ring, mask, totals, hours, bank, clocks, scope, p)
            if every_second:
                at = row + rows
                _emit_second(
                    rings, ring, mask, totals, hours, bank, news, clocks, windows, scope, p, leader, values, marks, at
                )
                rows += 1
        if not every_second:
            opening = p * len(windows)
            _open_windows(rings, ring, mask, openings, opening, totals, hours, bank, windows, clocks, scope, p, leader)

    if now - silent_from > HOLE_NS:
        clocks[p, HOLE_END] = now
    clocks[p, CLOCK] = now
    traded_before = clocks[p, LAST_TRADE]
    if abs(last_size) < inf:
        clocks[p, LAST_TRADE] = now
        if not is_tick or trades != TRADES_TELL_SIZES:
            _add(totals, p, SIZES, last_size)
            clocks[p, TELLS_SIZES] = 1
            if len(scope) > 0 and side != 0:
                bank[p, NEWS_OF_SECOND + X_SIDED] += last_size
                bank[p, NEWS_OF_SECOND + X_SIGNED] += side * last_size
    if not is_tick:
        return rows
    _add_tick(totals, news, p, price, bid, ask, bid_size, ask_size)
    if len(scope) > 0:
        _add_flow(bank, clocks, p, now, bid, ask, bid_size, ask_size)
    if every_second:
        return rows
    _emit_tick(totals, openings, p * len(windows), bank, news, clocks, windows, scope, p, values, marks, row)
    values[row, OUT_SINCE_TRADE] = (now - traded_before) / 1e9 if traded_before > 0 else nan
    values[row, OUT_GAP] = (now - before) / 1e9 if before > 0 else nan
    return 1


@compiled
def run(
    rings: Array,
    totals: Array,
    openings: Array,
    hours: Array,
    bank: Array,
    news: Array,
    clocks: Array,
    ids: Array,
    windows: Array,
    scope: Array,
    ring_length: int,
    trades: int,
    every_second: bool,
    leader: int,
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
    side: Array,
    trade_id: Array,
    sequence: Array,
    values: Array,
    marks: Array,
    room: int,
) -> tuple[int, int]:
    """Steps through events ``first`` on until the output has not ``room`` rows left; returns (next event, rows)."""
    # numba would compile what takes a literal 0, or a kind of 8 bits, once more beside what ``update`` calls
    rows: int = int64(0)
    last_start = marks.shape[0] - room
    for i in range(first, time.shape[0]):
        if rows > last_start:
            return i, rows
        made = step(
            rings,
            totals,
            openings,
            hours,
            bank,
            news,
            clocks,
            ids,
            windows,
            scope,
            ring_length,
            trades,
            every_second,
            leader,
            products[i],
            time[i],
            int64(kind[i]),
            price[i],
            bid[i],
            ask[i],
            bid_size[i],
            ask_size[i],
            last_size[i],
            int64(side[i]),
            trade_id[i],
            sequence[i],
            values,
            marks,
            rows,
        )
        for row in range(rows, rows + made):
            marks[row, MARK_EVENT] = i
        rows += made
    return time.shape[0], rows
