"""Columns of the kernel's arrays, and the two records that compiled functions receive.

Every array has the same number of rows for each product, one product after the other.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Array = Any

SECOND_NS: Final = 1_000_000_000
SESSION_GAP_NS: Final = 300 * SECOND_NS
"""A longer silence ends a session."""

SILENCE_NS: Final = 10 * SECOND_NS
"""A longer silence counts as a loss of data: rows are not ``is_whole`` while it lies in their longest window."""

REMEMBERED_IDS: Final = 256
CLOCK_SET_BACK_AFTER: Final = 10
"""Events in a row that must be older by a session's gap before the newest time is taken for wrong."""

# A record of ``totals`` and ``rings``: a session's sums up to the end of a second. A pair is two columns, high and low.
PRICE: Final = 0
RETURNS: Final = 1  # Σr, pair
SQUARES: Final = 3  # Σr², pair
MOVES: Final = 5  # Σ|P(k) − P(k−1)|, pair
TICKS: Final = 7
QUOTES: Final = 8  # ticks with a bid and an ask
SPREADS: Final = 9  # Σ(ask − bid), pair
BOOKS: Final = 11  # ticks with both sizes, not both 0
IMBALANCES: Final = 12  # Σ bid size / (bid size + ask size), pair
SIZES: Final = 14  # Σ trade size, pair
RECORD_COLUMNS: Final = 16

# A row of ``starts``: the record before a window's first second, then what changes only from second to second.
VOLATILITY: Final = RECORD_COLUMNS
VELOCITY: Final = RECORD_COLUMNS + 1
START_COLUMNS: Final = RECORD_COLUMNS + 2

# A row of ``hours``: the first columns of a record, and its ticks.
HOUR_TICKS: Final = 5
HOUR_COLUMNS: Final = 6
HOUR_LENGTH: Final = 4096  # seconds, a power of two
HOUR_MASK: Final = HOUR_LENGTH - 1

# Quantities of a second that are averaged with exponential weights, each with every half-life.
EW_RETURN: Final = 0
EW_SQUARE: Final = 1
EW_NEIGHBOURS: Final = 2  # r(k) r(k−1)
EW_BIPOWER: Final = 3  # |r(k) r(k−1)|
EW_UP: Final = 4  # r² of rises
EW_DOWN: Final = 5  # r² of falls
EW_MOVED: Final = 6
EW_SPARSE: Final = 7  # squared returns over each of SPARSE_S seconds
EW_TICKS: Final = 10
EW_SIZE: Final = 11
EW_SIDED: Final = 12  # size of trades with a side
EW_SIGNED: Final = 13  # bought less sold
EW_ORDER_FLOW: Final = 14
EW_DEPTH: Final = 15
EW_BOOKS: Final = 16
EW_SPREAD: Final = 17
EW_QUOTES: Final = 18
EW_FOURTH: Final = 19  # r⁴
EW_TICK_SQUARES: Final = 20  # squared returns from tick to tick
EW_CELL_SQUARES: Final = 21  # squared returns over cells of CELL_NS
EW_COUNT: Final = 22

HALF_LIVES: Final = (10, 30, 60, 300, 600, 1800)
"""Half-lives of the exponentially weighted means, in seconds."""

H10, H30, H60, H300, H600, H1800 = range(len(HALF_LIVES))
SPARSE_S: Final = (10, 30, 60)
INTENSITY_HALF_LIVES: Final = (1.0, 10.0, 60.0)
CELL_NS: Final = 100_000_000
LAGS: Final = 60
LEADER_RETURNS_S: Final = (1, 5, 10)

# Peaks: the highest values of a quantity in the last seconds, in three rings by second: of that second, and of the 10 s
# and the 60 s that end with it. Their lengths are powers of two; that of the last depends on the longest window.
TENS: Final = 16  # first column of a ring after the first column of the peaks
TENS_MASK: Final = 63
MINUTES: Final = TENS + TENS_MASK + 1
MASK_OF_300_S: Final = 255
MASK_OF_900_S: Final = 1023

# A row of ``averages``.
MEANS: Final = 0  # EW_COUNT of the first half-life, then of the next
WEIGHTS: Final = EW_COUNT * len(HALF_LIVES)  # sum of the weights, by half-life
UNFINISHED: Final = WEIGHTS + len(HALF_LIVES)  # the EW_COUNT quantities of the unfinished second
LAST_RETURN: Final = UNFINISHED + EW_COUNT
INTENSITIES: Final = LAST_RETURN + 1
FULL_QUOTE: Final = INTENSITIES + 3  # bid, ask, bid size and ask size of the newest tick that has them all
TICK_SIZES: Final = FULL_QUOTE + 4  # bid and ask size of the newest tick
HIGH: Final = TICK_SIZES + 2  # highest price of the unfinished second, the one before it included
LOW: Final = HIGH + 1
CELL_PRICE: Final = LOW + 1  # price at the end of the last finished cell in which it changed
LOG_MEANS: Final = CELL_PRICE + 1  # weighted mean of ln E_10[r²], by LOG_HALF_LIVES; its variance; its weight
LOG_HALF_LIVES: Final = (60, 300, 1800)
LEADER_MEAN: Final = LOG_MEANS + 3 * len(LOG_HALF_LIVES)  # weighted mean of ln(P(k) / leader's P(k)); its weight
SECOND_COLUMNS: Final = LEADER_MEAN + 2  # the features that all rows of a second share
HOUR_VOLATILITY: Final = SECOND_COLUMNS + 2  # V_3600, the third of them
VOLATILITY_RATIOS: Final = (SECOND_COLUMNS + 3, SECOND_COLUMNS + 5, SECOND_COLUMNS + 6)  # of 10, 60 and 300 s
AT_TICK_COUNT: Final = 9
BY_SECOND_COUNT: Final = 105
LEADER_COUNT: Final = 8
RETURN_PEAKS: Final = SECOND_COLUMNS + BY_SECOND_COUNT + LEADER_COUNT + 2 * LAGS  # of |r|
HIGH_PEAKS: Final = RETURN_PEAKS + MINUTES + MASK_OF_900_S + 1
LOW_PEAKS: Final = HIGH_PEAKS + MINUTES + MASK_OF_300_S + 1  # of the price times −1
AVERAGE_COLUMNS: Final = LOW_PEAKS + MINUTES + MASK_OF_300_S + 1

# A row of ``clocks``. Times in ns; a pair has one column for tickers and one for trades.
SECOND: Final = 0  # the unfinished second
FIRST_SECOND: Final = 1  # of the session; also the session's id
CLOCK: Final = 2  # time of the newest event
NEWEST: Final = 3  # newest time, pair
NEWEST_SEQUENCE: Final = 5  # its sequence, pair
LARGEST_ID: Final = 7  # largest trade id, pair
ID_COUNT: Final = 9  # trade ids remembered so far, pair
LAST_TRADE: Final = 11  # 0 before the session's first
SILENCE_END: Final = 12  # end of the session's last silence over SILENCE_NS, or of a gap; 0 without one
IN_SESSION: Final = 13
HAS_SIZES: Final = 14
OLDER_IN_A_ROW: Final = 15
LATE: Final = 16
DUPLICATES: Final = 17
UNPLACED: Final = 18
INVALID: Final = 19
LAST_TICK: Final = 20
PREVIOUS_FIRST: Final = 21  # first second of the session before this one
PREVIOUS_CLOCK: Final = 22  # its newest event; 0 without one
LAST_CHANGE: Final = 23  # time of the session's newest tick at another price, or of its first tick
CLOCK_COLUMNS: Final = 24

# A row of ``latest``, which outlives sessions: the newest quote, the newest ticker message and the newest trade, and
# the memory of a day.
LAST_BID: Final = 0
LAST_ASK: Final = 1
MESSAGES: Final = 2
MESSAGE_COLUMNS: Final = 6
DAY_SECONDS: Final = MESSAGES + 2 * MESSAGE_COLUMNS  # finished seconds in the last day's finished bins
DAY_SQUARES: Final = DAY_SECONDS + 1  # their Σr²
BINS: Final = DAY_SQUARES + 1  # ring of bins of BIN_S seconds
BIN_S: Final = 300
BINS_PER_DAY: Final = 288
BIN_COLUMNS: Final = 3  # number of the bin since 1970, its finished seconds, their Σr²
BIN_MASK: Final = 511
LATEST_COLUMNS: Final = BINS + BIN_COLUMNS * (BIN_MASK + 1)

# A row of ``values``: these, then the features.
OUT_PRICE: Final = 0
OUT_BID: Final = 1
OUT_ASK: Final = 2
OUT_SPREAD: Final = 3
OUT_SPREAD_BPS: Final = 4
OUT_SINCE_TRADE: Final = 5
OUT_GAP: Final = 6
OUT_FEATURES: Final = 7
FAMILY_COUNT: Final = 7

# A row of ``marks``; ``run`` alone writes the index of the event.
MARK_TIME: Final = 0
MARK_SESSION: Final = 1
MARK_FLAGS: Final = 2
MARK_PRODUCT: Final = 3
MARK_EVENT: Final = 4
MARK_COLUMNS: Final = 5

IS_WARM: Final = 1
IS_WHOLE: Final = 2

TICKER_KIND: Final = 0

# ``State.trades``, by profile.
TRADES_IGNORED: Final = 0  # ticker
TRADES_GIVE_SIZES: Final = 1  # ticker+trade
TRADES_ARE_TICKS: Final = 2  # trade

# ``State.leader``, where it is no product.
NO_LEADER: Final = -2
LEADER_NOT_MET: Final = -1


class State(NamedTuple):
    """The engine's arrays, its options, and the arrays that rows are written into.

    ``windows`` is a tuple because numba takes its length from the type and unrolls the loops over it. So is ``scope``,
    empty for the core set, with one element for the full and two for the deep one; it is passed on its own, because
    numba compiles no code behind ``if len(scope) > 0`` only where the tuple is an argument of the function.
    """

    rings: Array  # records of the seconds of the longest window, ``ring_length`` per product
    totals: Array  # the session's sums so far
    starts: Array  # one row per window
    hours: Array  # records of HOUR_LENGTH seconds; none for the core set
    averages: Array  # exponentially weighted means and the features made of them; none for the core set
    latest: Array
    clocks: Array
    trade_ids: Array  # (product, kind, REMEMBERED_IDS)
    windows: tuple[int, ...]
    ring_length: int
    trades: int
    every_second: bool
    leader: int
    values: Array
    marks: Array


class Event(NamedTuple):
    """One ticker message or trade. Missing prices and sizes are NaN, a missing id or sequence number is −1."""

    product: int
    time: int
    kind: int
    price: float
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    last_size: float
    side: int
    trade_id: int
    sequence: int
