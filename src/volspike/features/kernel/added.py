"""The families that the full and the deep feature set add, in the order of ``schema``.

What changes only from second to second is computed once a second into a product's row of ``averages`` and copied into
each of its rows. A family's function writes its columns from ``at`` on and returns the column after them.
"""

from __future__ import annotations

from math import cos, exp, inf, log, nan, pi, sin, sqrt
from typing import Final

from volspike.compiled import inlined, internal
from volspike.features.kernel.core import add_return, hour_row
from volspike.features.kernel.day import write_day
from volspike.features.kernel.layout import (
    CLOCK,
    EW_BIPOWER,
    EW_BOOKS,
    EW_COUNT,
    EW_DEPTH,
    EW_DOWN,
    EW_MOVED,
    EW_NEIGHBOURS,
    EW_ORDER_FLOW,
    EW_QUOTES,
    EW_RETURN,
    EW_SIDED,
    EW_SIGNED,
    EW_SIZE,
    EW_SPARSE,
    EW_SPREAD,
    EW_SQUARE,
    EW_TICKS,
    EW_UP,
    FIRST_SECOND,
    FULL_QUOTE,
    H10,
    H60,
    H300,
    H1800,
    HALF_LIVES,
    HOUR_LENGTH,
    HOUR_TICKS,
    IN_SESSION,
    INTENSITIES,
    INTENSITY_HALF_LIVES,
    LAGS,
    LAST_ASK,
    LAST_BID,
    LAST_RETURN,
    LAST_TICK,
    LEADER_COUNT,
    LEADER_MEAN,
    LEADER_NOT_MET,
    LEADER_RETURNS_S,
    NO_LEADER,
    PREVIOUS_CLOCK,
    PREVIOUS_FIRST,
    PRICE,
    QUOTES,
    SECOND,
    SECOND_COLUMNS,
    SECOND_NS,
    SESSION_GAP_NS,
    SIZES,
    SPARSE_S,
    SPREADS,
    TICK_SIZES,
    TICKS,
    UNFINISHED,
    WEIGHTS,
    Array,
    Event,
    State,
)
from volspike.features.kernel.price_path import write_path
from volspike.features.kernel.sums import deviation, difference, log_ratio, ratio

_DECAYS: Final = tuple(0.5 ** (1.0 / half_life) for half_life in HALF_LIVES)
_LN2: Final = log(2.0)


# Sums of the unfinished second


@inlined
def add_side(averages: Array, p: int, side: int, size: float) -> None:
    """Adds a trade with a known side to the unfinished second."""
    averages[p, UNFINISHED + EW_SIDED] += size
    averages[p, UNFINISHED + EW_SIGNED] += side * size


@inlined
def add_intensity(averages: Array, clocks: Array, p: int, now: int) -> None:
    """Adds a tick to the decaying intensities."""
    intensities = decayed_intensities(averages, clocks, p, now)
    for i in range(len(INTENSITY_HALF_LIVES)):
        averages[p, INTENSITIES + i] = intensities[i] + _LN2 / INTENSITY_HALF_LIVES[i]
    clocks[p, LAST_TICK] = now


@inlined
def add_order_flow(averages: Array, event: Event) -> None:
    """Adds a tick's order flow e_n, by Cont, Kukanov and Stoikov (2014), equation 1, and the depth of its book."""
    p, bid, ask, bid_size, ask_size = event.product, event.bid, event.ask, event.bid_size, event.ask_size
    averages[p, TICK_SIZES] = bid_size
    averages[p, TICK_SIZES + 1] = ask_size
    resting = bid_size + ask_size
    if not (0.0 < resting < inf and 0.0 < bid < inf and 0.0 < ask < inf):
        return
    if averages[p, FULL_QUOTE] > 0.0:
        flow = 0.0
        if bid >= averages[p, FULL_QUOTE]:
            flow += bid_size
        if bid <= averages[p, FULL_QUOTE]:
            flow -= averages[p, FULL_QUOTE + 2]
        if ask <= averages[p, FULL_QUOTE + 1]:
            flow -= ask_size
        if ask >= averages[p, FULL_QUOTE + 1]:
            flow += averages[p, FULL_QUOTE + 3]
        averages[p, UNFINISHED + EW_ORDER_FLOW] += flow
    averages[p, FULL_QUOTE] = bid
    averages[p, FULL_QUOTE + 1] = ask
    averages[p, FULL_QUOTE + 2] = bid_size
    averages[p, FULL_QUOTE + 3] = ask_size
    averages[p, UNFINISHED + EW_DEPTH] += 0.5 * resting
    averages[p, UNFINISHED + EW_BOOKS] += 1.0


@inlined
def decayed_intensities(averages: Array, clocks: Array, p: int, now: int) -> tuple[float, float, float]:
    """The decaying intensities at ``now``: one exponential, for the longest half-life; the others are powers of it."""
    by_minute = exp((clocks[p, LAST_TICK] - now) * (_LN2 / (INTENSITY_HALF_LIVES[2] * SECOND_NS)))
    cube = by_minute * by_minute * by_minute
    by_ten = cube * cube  # 60 s / 10 s = 6
    square = by_ten * by_ten
    by_one = square * square * square * square * square  # 10 s / 1 s = 10
    return (
        averages[p, INTENSITIES] * by_one,
        averages[p, INTENSITIES + 1] * by_ten,
        averages[p, INTENSITIES + 2] * by_minute,
    )


# The end of a second


@internal
def collect_second(state: State, p: int, before: int, r: float) -> None:
    """Completes the quantities of the second that ends: its return is ``r``, the one before it is in row ``before``."""
    averages, totals, rings, x = state.averages, state.totals, state.rings, UNFINISHED
    last, square = averages[p, LAST_RETURN], r * r
    averages[p, x + EW_RETURN] = r
    averages[p, x + EW_SQUARE] = square
    averages[p, x + EW_NEIGHBOURS] = r * last
    averages[p, x + EW_BIPOWER] = abs(r * last)
    averages[p, x + EW_UP] = square if r > 0.0 else 0.0
    averages[p, x + EW_DOWN] = square if r < 0.0 else 0.0
    averages[p, x + EW_MOVED] = 1.0 if r != 0.0 else 0.0
    for i in range(len(SPARSE_S)):
        then = max(state.clocks[p, SECOND] - SPARSE_S[i], state.clocks[p, FIRST_SECOND])
        over = log_ratio(totals[p, PRICE], state.hours[hour_row(p, then), PRICE])
        averages[p, x + EW_SPARSE + i] = over * over
    averages[p, x + EW_TICKS] = totals[p, TICKS] - rings[before, TICKS]
    averages[p, x + EW_SIZE] = difference(totals, p, rings, before, SIZES)
    averages[p, x + EW_SPREAD] = difference(totals, p, rings, before, SPREADS)
    averages[p, x + EW_QUOTES] = totals[p, QUOTES] - rings[before, QUOTES]
    averages[p, LAST_RETURN] = r


@internal
def update_means(averages: Array, p: int) -> None:
    """Moves every exponentially weighted mean by the quantities of the second that ends.

    The mean itself is kept, not the sums of which it is a quotient: rounding is monotone, so the mean of a part (the
    squares of rises) never exceeds that of the total (all squares), not even by a rounding error.
    """
    for h in range(len(HALF_LIVES)):
        weight = averages[p, WEIGHTS + h] * _DECAYS[h] + 1.0
        averages[p, WEIGHTS + h] = weight
        new = 1.0 / weight
        old = 1.0 - new
        for i in range(EW_COUNT):
            at = h * EW_COUNT + i
            averages[p, at] = averages[p, at] * old + averages[p, UNFINISHED + i] * new


@internal
def record_hour(state: State, p: int) -> int:
    """Writes the totals as the unfinished second's record in ``hours``; returns its row."""
    row: int = hour_row(p, state.clocks[p, SECOND])
    for column in range(HOUR_TICKS):
        state.hours[row, column] = state.totals[p, column]
    state.hours[row, HOUR_TICKS] = state.totals[p, TICKS]
    return row


@internal
def record_hour_early(state: State, p: int) -> None:
    """Writes the unfinished second's record in ``hours`` as if the second ended now; its end overwrites it."""
    row, second = record_hour(state, p), state.clocks[p, SECOND]
    if second > state.clocks[p, FIRST_SECOND]:
        add_return(state.hours, row, state.totals[p, PRICE], state.hours[hour_row(p, second - 1), PRICE])


@internal
def clear_second(averages: Array, p: int) -> None:
    """Sets the quantities of the unfinished second to 0."""
    for i in range(EW_COUNT):
        averages[p, UNFINISHED + i] = 0.0


# The families that change from second to second


@inlined
def _mean_spread(averages: Array, p: int, half_life: int) -> float:
    return ratio(averages[p, half_life * EW_COUNT + EW_SPREAD], averages[p, half_life * EW_COUNT + EW_QUOTES])


@internal
def _hour_volatility(hours: Array, p: int, newest: int, first: int, window: int) -> float:
    """Volatility of the last ``window`` returns up to second ``newest``, or of as many as there are since ``first``."""
    n = min(window, newest - first)
    return deviation(hours, hour_row(p, newest), hours, hour_row(p, newest - n), n)


@internal
def _write_realized_volatility(averages: Array, hours: Array, clocks: Array, p: int, at: int) -> int:
    newest, first = clocks[p, SECOND] - 1, clocks[p, FIRST_SECOND]
    for i, window in enumerate((10, 900, 3600)):
        averages[p, at + i] = _hour_volatility(hours, p, newest, first, window)
    return at + 3


@internal
def _write_volatility_ratio(averages: Array, hours: Array, clocks: Array, p: int, at: int) -> int:
    """Reads the volatilities of 10, 900 and 3600 s from the three columns before ``at``."""
    newest, first = clocks[p, SECOND] - 1, clocks[p, FIRST_SECOND]
    of_hour = averages[p, at - 1]
    averages[p, at] = ratio(averages[p, at - 3], of_hour)
    for i, window in enumerate((30, 60, 300)):
        averages[p, at + 1 + i] = ratio(_hour_volatility(hours, p, newest, first, window), of_hour)
    averages[p, at + 4] = ratio(averages[p, at - 2], of_hour)
    return at + 5


@internal
def _write_ewma_volatility(averages: Array, p: int, at: int) -> int:
    for h in range(len(HALF_LIVES)):
        averages[p, at + h] = sqrt(averages[p, h * EW_COUNT + EW_SQUARE])
    return at + len(HALF_LIVES)


@internal
def _write_ewma_ratio(averages: Array, p: int, at: int) -> int:
    of_hour = sqrt(averages[p, H1800 * EW_COUNT + EW_SQUARE])
    for i, h in enumerate((H10, H60, H300)):
        averages[p, at + i] = ratio(sqrt(averages[p, h * EW_COUNT + EW_SQUARE]), of_hour)
    return at + 3


@internal
def _write_bipower_volatility(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H60, H300, H1800)):
        averages[p, at + i] = sqrt(0.5 * pi * averages[p, h * EW_COUNT + EW_BIPOWER])
    return at + 3


@internal
def _write_jump_share(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H60, H300, H1800)):
        continuous = 0.5 * pi * averages[p, h * EW_COUNT + EW_BIPOWER]
        # max(NaN, 0) is NaN, max(0, NaN) would be 0: where nothing moved there is no share
        averages[p, at + i] = max(1.0 - ratio(continuous, averages[p, h * EW_COUNT + EW_SQUARE]), 0.0)
    return at + 3


@internal
def _write_semivolatility(averages: Array, p: int, at: int, quantity: int) -> int:
    """The root of a semivariance: upside volatility of ``EW_UP``, downside volatility of ``EW_DOWN``."""
    for i, h in enumerate((H60, H300)):
        averages[p, at + i] = sqrt(averages[p, h * EW_COUNT + quantity])
    return at + 2


@internal
def _write_semivariance_balance(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H60, H300, H1800)):
        balance = averages[p, h * EW_COUNT + EW_UP] - averages[p, h * EW_COUNT + EW_DOWN]
        averages[p, at + i] = ratio(balance, averages[p, h * EW_COUNT + EW_SQUARE])
    return at + 3


@internal
def _write_trend(averages: Array, p: int, at: int) -> int:
    for h in range(H1800):
        averages[p, at + h] = ratio(averages[p, h * EW_COUNT + EW_RETURN], sqrt(averages[p, h * EW_COUNT + EW_SQUARE]))
    return at + 5


@internal
def _write_trend_strength(averages: Array, p: int, at: int) -> int:
    """Reads the trends from the five columns before ``at``."""
    for h in range(H1800):
        averages[p, at + h] = abs(averages[p, at - 5 + h])
    return at + 5


@internal
def _write_return_autocorrelation(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H10, H60, H1800)):
        averages[p, at + i] = ratio(averages[p, h * EW_COUNT + EW_NEIGHBOURS], averages[p, h * EW_COUNT + EW_SQUARE])
    return at + 3


@internal
def _write_sparse_volatility(averages: Array, p: int, at: int) -> int:
    for i in range(len(SPARSE_S)):
        averages[p, at + i] = sqrt(averages[p, H60 * EW_COUNT + EW_SPARSE + i] / SPARSE_S[i])
    return at + 3


@internal
def _write_variance_ratio(averages: Array, p: int, at: int) -> int:
    for i in range(len(SPARSE_S)):
        sparse = ratio(averages[p, H300 * EW_COUNT + EW_SPARSE + i], averages[p, H300 * EW_COUNT + EW_SQUARE])
        averages[p, at + i] = sparse / SPARSE_S[i]
    return at + 3


@internal
def _write_moving_share(averages: Array, p: int, at: int) -> int:
    averages[p, at] = averages[p, H60 * EW_COUNT + EW_MOVED]
    averages[p, at + 1] = averages[p, H1800 * EW_COUNT + EW_MOVED]
    return at + 2


@internal
def _write_hour_ratio(averages: Array, p: int, at: int, quantity: int) -> int:
    """A quantity against its mean of the hour: volume ratio of ``EW_SIZE``, tick ratio of ``EW_TICKS``."""
    for i, h in enumerate((H10, H60, H300)):
        averages[p, at + i] = ratio(averages[p, h * EW_COUNT + quantity], averages[p, H1800 * EW_COUNT + quantity])
    return at + 3


@internal
def _write_flow_imbalance(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H10, H60, H300, H1800)):
        averages[p, at + i] = ratio(averages[p, h * EW_COUNT + EW_SIGNED], averages[p, h * EW_COUNT + EW_SIDED])
    return at + 4


@internal
def _write_order_flow_imbalance(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H10, H60, H300)):
        depth = ratio(averages[p, h * EW_COUNT + EW_DEPTH], averages[p, h * EW_COUNT + EW_BOOKS])
        averages[p, at + i] = ratio(averages[p, h * EW_COUNT + EW_ORDER_FLOW], depth)
    return at + 3


@internal
def _write_spread_mean_ratio(averages: Array, p: int, at: int) -> int:
    averages[p, at] = ratio(_mean_spread(averages, p, H60), _mean_spread(averages, p, H1800))
    return at + 1


@internal
def _write_time_of_day(averages: Array, p: int, second: int, at: int) -> int:
    """The phase of the UTC day at the end of the newest finished second; ``second`` is the one after it."""
    phase = 2.0 * pi * (second % 86_400) / 86_400.0
    averages[p, at] = sin(phase)
    averages[p, at + 1] = cos(phase)
    return at + 2


@internal
def _write_seconds_to_full(averages: Array, p: int, second: int, at: int) -> int:
    """Seconds from the end of the newest finished second to the next full 5, 15 and 60 minutes."""
    for i, span in enumerate((300, 900, 3600)):
        averages[p, at + i] = float(span - second % span)
    return at + 3


@internal
def _find_leader(state: State, newest: int) -> tuple[int, int]:
    """The leader's newest record at second ``newest``, and how many seconds before it are known (-1: no price).

    The leader's own clock may be behind that second or, where silent seconds are closed late, ahead of it, even in
    another session. If it is behind, its price is carried to that second, as its own rows will do once they exist.
    """
    clocks, leader = state.clocks, state.leader
    if leader == LEADER_NOT_MET or clocks[leader, IN_SESSION] == 0:
        return 0, -1
    last, first, clock = clocks[leader, SECOND], clocks[leader, FIRST_SECOND], clocks[leader, CLOCK]
    kept = HOUR_LENGTH - 1 - (last - newest)
    if newest < first:
        first, clock = clocks[leader, PREVIOUS_FIRST], clocks[leader, PREVIOUS_CLOCK]
        last = clock // SECOND_NS
    elif newest >= last:
        record_hour_early(state, leader)
    if (newest + 1) * SECOND_NS - clock > SESSION_GAP_NS:
        return last, -1
    return last, max(min(newest - first, kept, 3600), -1)


@internal
def update_leader_mean(state: State, p: int) -> None:
    """Moves the mean log price ratio of a product and its leader by the second that ended, if the leader has a price.

    A constant factor between their quote currencies is in the mean, so that the distance from it is free of it.
    """
    averages, hours, newest = state.averages, state.hours, state.clocks[p, SECOND] - 1
    last, known = _find_leader(state, newest)
    if known < 0:
        return
    of_leader = hours[hour_row(state.leader, min(newest, last)), PRICE]
    weight = averages[p, LEADER_MEAN + 1] * _DECAYS[H1800] + 1.0
    over = log_ratio(hours[hour_row(p, newest), PRICE], of_leader)
    averages[p, LEADER_MEAN] += (over - averages[p, LEADER_MEAN]) / weight
    averages[p, LEADER_MEAN + 1] = weight


@internal
def _write_leader(state: State, p: int, at: int) -> int:
    """The leading product's features at the product's newest finished second; NaN until a minute of it is known."""
    averages, hours, leader = state.averages, state.hours, state.leader
    for i in range(LEADER_COUNT):
        averages[p, at + i] = nan
    newest = state.clocks[p, SECOND] - 1
    last, known = _find_leader(state, newest)
    if known < 60:
        return at + LEADER_COUNT
    now = hour_row(leader, min(newest, last))
    minute = deviation(hours, now, hours, hour_row(leader, min(newest - 60, last)), 60)
    of_hour = deviation(hours, now, hours, hour_row(leader, min(newest - known, last)), known)
    averages[p, at] = minute
    averages[p, at + 1] = ratio(minute, of_hour)
    ten = deviation(hours, now, hours, hour_row(leader, min(newest - 10, last)), 10)
    averages[p, at + 2] = ratio(ten, of_hour)
    price = hours[now, PRICE]
    for i, seconds in enumerate(LEADER_RETURNS_S):
        averages[p, at + 3 + i] = log_ratio(price, hours[hour_row(leader, min(newest - seconds, last)), PRICE])
    own = hours[hour_row(p, newest), PRICE]
    averages[p, at + 6] = 1e4 * (log_ratio(own, price) - averages[p, LEADER_MEAN])
    averages[p, at + 7] = 1e4 * (log_ratio(own, hours[hour_row(p, newest - 10), PRICE]) - averages[p, at + 5])
    return at + LEADER_COUNT


@internal
def _write_lag_return(averages: Array, hours: Array, p: int, newest: int, at: int) -> int:
    for j in range(LAGS):
        now, then = hour_row(p, newest - j), hour_row(p, newest - j - 1)
        averages[p, at + j] = log_ratio(hours[now, PRICE], hours[then, PRICE])
    return at + LAGS


@internal
def _write_lag_ticks(averages: Array, hours: Array, p: int, newest: int, at: int) -> int:
    for j in range(LAGS):
        now, then = hour_row(p, newest - j), hour_row(p, newest - j - 1)
        averages[p, at + j] = hours[now, HOUR_TICKS] - hours[then, HOUR_TICKS]
    return at + LAGS


@internal
def write_second(state: State, scope: tuple[int, ...], p: int) -> None:
    """Computes the features that change only from second to second, as of the newest finished one."""
    averages, hours, clocks, second = state.averages, state.hours, state.clocks, state.clocks[p, SECOND]
    at = _write_realized_volatility(averages, hours, clocks, p, SECOND_COLUMNS)
    at = _write_volatility_ratio(averages, hours, clocks, p, at)
    at = _write_ewma_volatility(averages, p, at)
    at = _write_ewma_ratio(averages, p, at)
    at = _write_bipower_volatility(averages, p, at)
    at = _write_jump_share(averages, p, at)
    at = _write_semivolatility(averages, p, at, EW_UP)
    at = _write_semivolatility(averages, p, at, EW_DOWN)
    at = _write_semivariance_balance(averages, p, at)
    at = _write_trend(averages, p, at)
    at = _write_trend_strength(averages, p, at)
    at = _write_return_autocorrelation(averages, p, at)
    at = _write_sparse_volatility(averages, p, at)
    at = _write_variance_ratio(averages, p, at)
    at = _write_moving_share(averages, p, at)
    at = _write_hour_ratio(averages, p, at, EW_SIZE)
    at = _write_flow_imbalance(averages, p, at)
    at = _write_hour_ratio(averages, p, at, EW_TICKS)
    at = _write_order_flow_imbalance(averages, p, at)
    at = _write_spread_mean_ratio(averages, p, at)
    at = _write_time_of_day(averages, p, second, at)
    at = _write_seconds_to_full(averages, p, second, at)
    at = write_path(state, p, at)
    at = write_day(averages, state.latest, p, second - 1, at)
    if state.leader != NO_LEADER:
        at = _write_leader(state, p, at)
    if len(scope) > 1:
        at = _write_lag_return(averages, hours, p, second - 1, at)
        _write_lag_ticks(averages, hours, p, second - 1, at)


# The families that change with every tick


@inlined
def _write_intensity(state: State, p: int, row: int, at: int, intensities: tuple[float, float, float]) -> int:
    """The decaying intensities, and each against the hour's mean rate."""
    for i in range(len(INTENSITY_HALF_LIVES)):
        state.values[row, at + i] = intensities[i]
        state.values[row, at + 3 + i] = ratio(intensities[i], state.averages[p, H1800 * EW_COUNT + EW_TICKS])
    return at + 6


@inlined
def _write_quote_families(state: State, p: int, row: int, at: int) -> int:
    """Weighted mid, quoted spread and spread ratio of the newest tick."""
    bid, ask = state.latest[p, LAST_BID], state.latest[p, LAST_ASK]
    bid_size, ask_size = state.averages[p, TICK_SIZES], state.averages[p, TICK_SIZES + 1]
    middle, resting = 0.5 * (bid + ask), bid_size + ask_size
    balance = (bid * ask_size + ask * bid_size) / resting if 0.0 < resting < inf else nan
    state.values[row, at] = (balance - middle) / middle * 1e4
    state.values[row, at + 1] = (ask - bid) / middle * 1e4
    state.values[row, at + 2] = ratio(ask - bid, _mean_spread(state.averages, p, H1800))
    return at + 3


@inlined
def write_added(state: State, p: int, row: int, at: int, intensities: tuple[float, float, float]) -> None:
    """Writes all added features of a warm row from column ``at`` on: those of the tick, then those of the second."""
    at = _write_intensity(state, p, row, at, intensities)
    at = _write_quote_families(state, p, row, at)
    for column in range(state.values.shape[1] - at):
        state.values[row, at + column] = state.averages[p, SECOND_COLUMNS + column]


@inlined
def write_cold_added(values: Array, row: int, at: int) -> None:
    """Writes NaN for all added features of a row that is not warm."""
    for column in range(at, values.shape[1]):
        values[row, column] = nan
