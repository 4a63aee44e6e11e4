"""Episodes: one spike is one alert, and recorded rows have the same episodes as live ones."""

from __future__ import annotations

from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from volspike.episodes import (
    CloseReason,
    Episode,
    EpisodeTracker,
    Runs,
    SeriesOrder,
    alarm_runs,
    episode_id,
    spike_runs,
)
from volspike.errors import UsageError
from volspike.market import SECOND_NS

SECOND = 1_000_000_000
CAP = 300 * SECOND

probabilities = st.one_of(st.none(), st.just(nan), st.floats(0.0, 1.0))
steps = st.tuples(st.integers(-200 * SECOND, 200 * SECOND), probabilities)


def tracker(hold_s: float = 30.0, quiet_s: float = 5.0) -> EpisodeTracker:
    return EpisodeTracker(0.5, product="BTC-USD", hold_s=hold_s, quiet_s=quiet_s)


def run(tracker: EpisodeTracker, rows: list[tuple[float, float | None]]) -> list[Episode]:
    """The openings and closings of rows (seconds, probability)."""
    events = [tracker.update(round(at * SECOND), probability) for at, probability in rows]
    return [event for event in events if event is not None]


@given(st.lists(steps, max_size=80), st.floats(0, 120), st.floats(0, 20))
def test_episodes_never_overlap_and_last_their_hold(rows: list[tuple[int, float]], hold: float, quiet: float) -> None:
    """For any rows in any order, openings and closings alternate and every episode lasts at least the hold time.

    Only an episode that was open for the cap closes for that reason, and none is open after a row beyond the cap.
    """
    it, now, last = tracker(hold, quiet), 10**18, None
    for step, probability in rows:
        now += step
        event = it.update(now, probability)
        assert (it.current is not None) == (event.is_open if event else last is not None and last.is_open)
        if event is None:
            continue
        if event.is_open:
            assert last is None or not last.is_open
            assert event.peak_probability >= 0.5
        else:
            assert last is not None
            assert last.is_open
            assert event.id == last.id
            assert event.closed is not None
            assert event.closed - event.opened >= round(hold * SECOND)
            assert event.peak_probability >= last.peak_probability
            assert (event.reason is not CloseReason.CAPPED) or event.closed - event.opened >= CAP
        last = event
        assert it.current is None or it.current.opened > now - CAP or it.current.opened == event.opened


@given(st.lists(st.tuples(st.integers(0, 5 * SECOND), st.floats(0.41, 1.0)), min_size=1, max_size=200))
def test_crossing_the_threshold_repeatedly_is_one_episode(rows: list[tuple[int, float]]) -> None:
    """A probability that crosses the threshold often without falling to the release level opens one episode."""
    it, now, events = tracker(), 10**18, []
    for step, probability in [(0, 0.6), *rows]:
        now += step
        events.append(it.update(now, probability))
    assert sum(event is not None and event.is_open for event in events) == 1


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND), probabilities), max_size=80))
def test_ids_sort_by_time_and_are_reproducible(rows: list[tuple[int, float]]) -> None:
    """The same rows give the same ids, and later episodes have greater ones."""

    def ids() -> list[str]:
        it, now, found = tracker(0, 0), 10**18, []
        for step, probability in rows:
            now += step + 1
            event = it.update(now, probability)
            found += [event.id] if event is not None and event.is_open else []
        return found

    assert ids() == sorted(set(ids()))


def test_an_episode_closes_after_hold_and_quiet() -> None:
    """It closes at the first row after the hold time that has been quiet long enough, and reports its peak."""
    events = run(tracker(), [(0, 0.49), (1, 0.5), (2, 0.9), (10, 0.3), (14, 0.45), (25, 0.3), (30, 0.2), (31, 0.1)])
    opened, closed = events
    assert (opened.opened, opened.closed, opened.reason) == (SECOND, None, None)
    assert (closed.closed, closed.reason, closed.peak_probability) == (31 * SECOND, CloseReason.RELEASED, 0.9)


def high(start: int, end: int) -> list[tuple[float, float | None]]:
    """A probability of 0.9 every ten seconds from ``start`` to ``end``, included."""
    return [(at, 0.9) for at in range(start, end + 1, 10)]


def test_an_episode_closes_at_its_cap() -> None:
    """After five minutes it closes although the probability is still high, and no other opens."""
    events = run(tracker(), high(0, 2000))
    assert [(event.opened, event.closed, event.reason) for event in events] == [
        (0, None, None),
        (0, 300 * SECOND, CloseReason.CAPPED),
    ]
    assert [event.closed for event in run(tracker(), [*high(0, 290), (310, None)])] == [None, 310 * SECOND]


def test_a_capped_tracker_opens_only_after_a_release() -> None:
    """A probability below the release level for less than the quiet time, or between the levels, does not arm it."""
    it = tracker()
    assert len(run(it, high(0, 300))) == 2
    assert run(it, [(310, 0.45), (350, 0.45), (400, 0.1), (404, 0.1), (405, 0.9), (450, 0.9)]) == []
    assert run(it, [(460, 0.1), (465, 0.1)]) == []
    assert [event.opened for event in run(it, [(466, 0.9)])] == [466 * SECOND]


def test_a_capped_tracker_opens_after_a_long_unknown() -> None:
    """60 s without a known probability arm it again, as they close an episode; 59 s do not."""
    for silence, opened in ((59, []), (60, [361])):
        it = tracker()
        run(it, high(0, 300))
        events = run(it, [(300 + silence, 0.9), (301 + silence, 0.9)])
        assert [event.opened // SECOND for event in events] == opened


def test_quiet_time_counts_from_before_the_cap() -> None:
    """A probability that has been low for 4 s at the cap arms the tracker 1 s later; for 5 s, it releases."""
    (*_, capped) = run(tracker(), [*high(0, 290), (296, 0.1), (300, 0.1)])
    assert capped.reason is CloseReason.CAPPED
    assert len(run(tracker(), [*high(0, 290), (296, 0.1), (300, 0.1), (301, 0.1), (302, 0.9)])) == 3
    (*_, released) = run(tracker(), [*high(0, 290), (295, 0.1), (300, 0.1)])
    assert released.reason is CloseReason.RELEASED


def test_a_brief_unknown_neither_opens_nor_closes() -> None:
    """None, NaN and infinity change nothing for less than a minute."""
    it = tracker(hold_s=0, quiet_s=0)
    assert run(it, [(0, None), (1, nan), (2, inf)]) == []
    assert len(run(it, [(3, 0.7), (4, None), (20, nan), (62, nan)])) == 1
    assert it.current is not None


def test_a_long_unknown_closes_with_that_reason() -> None:
    """60 s without a known probability close an episode, with or without rows in between."""
    for rows in ([(30.0, nan), (61.0, nan)], [(61.0, 0.9)]):
        events = run(tracker(), [(1.0, 0.7), *rows])
        assert [event.reason for event in events] == [None, CloseReason.UNKNOWN]


def test_an_episode_expires_without_a_row() -> None:
    """It closes at the second at which its probability has been unknown for a minute, as a row then would close it."""
    it = tracker()
    run(it, [(1.0, 0.7), (5.0, 0.7)])
    assert it.expire(65 * SECOND - 1) is None
    closed = it.expire(90 * SECOND)
    assert closed is not None
    assert (closed.closed, closed.reason) == (65 * SECOND, CloseReason.UNKNOWN)
    assert it.expire(200 * SECOND) is None
    assert [event.opened for event in run(it, [(91.0, 0.7)])] == [91 * SECOND]
    (_, by_row) = run(tracker(), [(1.0, 0.7), (5.0, 0.7), (65.0, nan)])
    assert by_row == closed


def test_late_rows_count_as_at_the_newest_time() -> None:
    """A small step back neither shortens nor extends an episode."""
    events = run(tracker(), [(100, 0.7), (95, 0.9), (132, 0.1), (120, 0.1), (137, 0.1)])
    assert [event.closed for event in events] == [None, 137 * SECOND]


def test_a_long_step_back_starts_again() -> None:
    """If time starts again far back, the open episode closes and the next can open at the new time."""
    events = run(tracker(), [(1000, 0.7), (1010, 0.7), (10, 0.9), (11, 0.9)])
    assert [(event.opened // SECOND, event.reason) for event in events] == [
        (1000, None),
        (1000, CloseReason.CLOCK),
        (11, None),
    ]
    assert run(tracker(), [(1000, 0.1), (10, 0.9)])[0].opened == 10 * SECOND


@given(st.lists(steps, max_size=60), st.integers(0, 60))
def test_a_resumed_tracker_continues_unchanged(rows: list[tuple[int, float]], cut: int) -> None:
    """Saving the state after any row and resuming it in a new tracker changes no episode."""
    one, other, now = tracker(), tracker(), 10**18
    for index, (step, probability) in enumerate(rows):
        if index == cut:
            resumed = tracker()
            resumed.resume(other.state())
            other = resumed
        now += step
        assert one.update(now, probability) == other.update(now, probability)
    assert one.state() == other.state()


def test_id_sorts_by_time_across_products() -> None:
    """The time comes first, in a fixed number of digits."""
    assert episode_id("ETH-USD", 999_999_999) < episode_id("BTC-USD", SECOND)


@pytest.mark.parametrize(
    "settings",
    [
        *({"release": 0.5}, {"release": 0.0}, {"release": nan}, {"hold_s": -1.0}, {"quiet_s": nan}, {"unknown_s": 0.0}),
        *({"cap_s": 59.9}, {"cap_s": nan}, {"cap_s": inf}, {"hold_s": 0.0, "cap_s": 0.0}),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, float]) -> None:
    """A release level at or above the threshold, a negative time, or a cap below the hold is a usage error."""
    with pytest.raises(UsageError):
        EpisodeTracker(0.5, product="BTC-USD", **settings)


recorded_rows = st.lists(
    st.tuples(st.integers(0, 65), st.sampled_from([nan, inf, 0.0, 0.39, 0.4, 0.45, 0.5, 0.9, 0.9])), max_size=120
)
"""Steps of seconds, and probabilities exactly at and around the levels of a threshold of 0.5."""


def ordered(second: list[float], product: list[int] | None = None, fold: list[int] | None = None) -> SeriesOrder:
    n = len(second)
    time = (np.array(second) * SECOND).astype(np.int64)
    return SeriesOrder.of(time, np.array(product or [0] * n, np.int32), np.array(fold or [0] * n, np.int32))


@given(recorded_rows)
def test_recorded_episodes_equal_live_ones(rows: list[tuple[int, float]]) -> None:
    """The same rows open and close the same episodes in ``alarm_runs`` and in ``EpisodeTracker``."""
    second = np.cumsum([step for step, _ in rows]).astype(int).tolist()
    live, is_open, opened = EpisodeTracker(0.5, product="BTC-USD"), [], []
    for at, (_, probability) in zip(second, rows, strict=True):
        live.update(at * SECOND, probability)
        is_open.append(live.current is not None)
        opened.append(live.current.opened if live.current else None)
    found = alarm_runs(ordered(second), np.array([probability for _, probability in rows]), 0.5)
    assert found.mask(len(second)).tolist() == is_open
    assert [second[at] * SECOND for at in found.first] == [
        at for at, before in zip(opened, [None, *opened], strict=False) if at is not None and at != before
    ]


@given(
    recorded_rows,
    st.lists(st.sampled_from([0.3, 0.5, 0.7]), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_recorded_episodes_equal_live_ones_at_a_threshold_that_moves(
    rows: list[tuple[int, float]], levels: list[float], may: list[bool]
) -> None:
    """Each row is compared with its own threshold, the release level moves with it, and only some rows may open one."""
    second = np.cumsum([step for step, _ in rows]).astype(int).tolist()
    threshold, may_open = np.resize(levels, len(rows)), np.resize(may, len(rows))
    live, is_open = EpisodeTracker(0.5, product="BTC-USD"), []
    for at, (_, probability), level, opens in zip(second, rows, threshold.tolist(), may_open.tolist(), strict=True):
        live.set_threshold(level)
        live.update(at * SECOND, probability, may_open=opens)
        is_open.append(live.current is not None)
    found = alarm_runs(ordered(second), np.array([probability for _, probability in rows]), threshold, may_open)
    assert found.mask(len(second)).tolist() == is_open


@pytest.mark.parametrize("threshold", [0.0, -0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_above_zero_is_refused(threshold: float) -> None:
    """The tracker keeps its threshold."""
    live = EpisodeTracker(0.5, product="BTC-USD")
    with pytest.raises(UsageError, match="above 0"):
        live.set_threshold(threshold)
    assert live.threshold == 0.5


def test_a_row_that_may_open_no_episode_ends_none() -> None:
    """An episode that is open continues through rows at which none may open."""
    live = EpisodeTracker(0.5, product="BTC-USD")
    assert live.update(0, 0.9, may_open=False) is None
    assert live.update(SECOND, 0.9, may_open=True) is not None
    assert live.update(2 * SECOND, 0.9, may_open=False) is None
    assert live.current is not None
    assert live.current.opened == SECOND


def slow_episodes(second: list[int], score: list[float], may_open: list[bool]) -> list[tuple[int, int]]:
    """First and last position of each episode at a threshold of 0.5, each row decided from all rows since it opened."""
    found: list[tuple[int, int]] = []
    start, is_capped = None, False
    for row, now in enumerate(second):
        if start is None:
            opens = isfinite(score[row]) and score[row] >= 0.5 and may_open[row]
            start, is_capped = (row if opens else None), False
            continue
        known = [at for at in range(start, row) if isfinite(score[at])]
        is_unknown = now - second[known[-1]] >= 60
        known += [row] if isfinite(score[row]) else []
        last_high = max((at for at in known if score[at] >= 0.4), default=-1)
        low = [at for at in known if at > last_high]
        is_released = row in known and bool(low) and now - second[low[0]] >= 10
        if (is_capped or now - second[start] >= 60) and (is_unknown or is_released):
            found += [] if is_capped else [(start, row - 1)]
            start = None
        elif not is_capped and now - second[start] >= 300:
            found.append((start, row - 1))
            is_capped = True
    return found if start is None or is_capped else [*found, (start, len(second) - 1)]


@given(recorded_rows, st.lists(st.booleans(), min_size=1, max_size=7))
def test_recorded_episodes_equal_a_slow_reading_of_the_rule(rows: list[tuple[int, float]], may: list[bool]) -> None:
    """The same episodes as deciding each row from everything since the opening."""
    second = np.cumsum([step for step, _ in rows]).astype(int).tolist()
    score = [probability for _, probability in rows]
    may_open = np.resize(may, len(rows))
    found = alarm_runs(ordered(second), np.array(score), 0.5, may_open)
    expected = slow_episodes(second, score, may_open.tolist())
    assert list(zip(found.first.tolist(), found.last.tolist(), strict=True)) == expected


def test_each_series_begins_without_an_episode() -> None:
    """An episode of one product does not continue in the next, which may have another threshold."""
    series = ordered([0, 1, 0, 1], product=[0, 0, 1, 1])
    found = alarm_runs(series, np.array([0.6, 0.6, 0.6, 0.8]), np.array([0.5, 0.5, 0.7, 0.7]))
    assert (found.first.tolist(), found.last.tolist()) == ([0, 3], [1, 3])


def test_thresholds_outside_the_range_of_a_probability() -> None:
    """No score reaches an infinite threshold; a threshold that is not above 0 is its own release level."""
    series = ordered(list(range(0, 200, 5)))
    score = np.where(np.arange(40) < 2, -0.5, -1.1)
    assert len(alarm_runs(series, score, inf)) == 0
    assert alarm_runs(series, score, -1.0).last.tolist() == [11]


def runs_of(ends: list[int]) -> Runs:
    """Ascending positions taken in pairs."""
    pairs = np.array(ends[: len(ends) // 2 * 2], np.int64).reshape(-1, 2)
    return Runs(pairs[:, 0], pairs[:, 1])


def outcomes(y: list[int]) -> NDArray[np.int8]:
    return np.array(y, np.int8)


positions = st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted)


def test_spikes_less_than_a_horizon_apart_are_one_event() -> None:
    """59 seconds apart share a second of their future; 60 do not."""
    joined = spike_runs(ordered([0, 1, 30, 60]), outcomes([0, 1, 0, 1]))
    assert (joined.first.tolist(), joined.last.tolist()) == ([1], [3])
    apart = spike_runs(ordered([0, 1, 30, 61]), outcomes([0, 1, 0, 1]))
    assert (apart.first.tolist(), apart.last.tolist()) == ([1, 3], [1, 3])


def test_spikes_of_a_longer_horizon_are_one_event() -> None:
    """At a horizon of 300 s, spikes 299 s apart share a second of their future; 300 s apart do not."""
    series = SeriesOrder.of(np.array([0, 299, 599]) * SECOND, np.zeros(3, np.int32), horizon_s=300)
    runs = spike_runs(series, outcomes([1, 1, 1]))
    assert (runs.first.tolist(), runs.last.tolist()) == ([0, 2], [1, 2])


def test_products_and_folds_have_their_own_events() -> None:
    """Spikes at the same time in two products, or on both sides of a fold's end, are two events."""
    assert len(spike_runs(ordered([0, 0, 1, 1], product=[0, 1, 0, 1]), outcomes([1, 1, 1, 1]))) == 2
    assert len(spike_runs(ordered([0, 1, 2, 3], fold=[1, 1, 2, 2]), outcomes([1, 1, 1, 1]))) == 2


def test_covered_seconds_exclude_silences() -> None:
    """A row covers the time until the next of its series, not a silence nor the time after the last row."""
    series = ordered([0, 1, 11, 100, 101, 5], product=[0, 0, 0, 0, 0, 1])
    assert series.seconds().tolist() == [1.0, 10.0, 0.0, 1.0, 0.0, 0.0]


@given(positions, positions)
def test_first_overlap_equals_a_search_over_all_pairs(mine: list[int], theirs: list[int]) -> None:
    """The first run that shares a position is found."""
    ours, others = runs_of(mine), runs_of(theirs)
    pairs = list(zip(others.first, others.last, strict=True))
    expected = [
        next((i for i, (a, b) in enumerate(pairs) if a <= last and b >= first), -1)
        for first, last in zip(ours.first, ours.last, strict=True)
    ]
    assert ours.first_overlap(others).tolist() == expected


@given(positions)
def test_mask_holds_the_positions_of_the_runs(ends: list[int]) -> None:
    """First and last position of each run included, nothing else."""
    runs = runs_of(ends)
    expected = [any(a <= at <= b for a, b in zip(runs.first, runs.last, strict=True)) for at in range(61)]
    assert runs.mask(61).tolist() == expected


@pytest.mark.parametrize(("rows", "closes"), [(5, 64.0), (100, 159.0)])
def test_the_end_of_a_session_closes_as_a_silence_does(rows: int, closes: float) -> None:
    """The end of a session closes an open episode when it has lasted and been unknown for a minute each, and once."""
    tracker = EpisodeTracker(0.5, product="X")
    assert tracker.end_session() is None
    for second in range(rows):
        tracker.update(second * SECOND_NS, 0.9)
    closed = tracker.end_session()
    assert closed is not None
    assert (closed.closed, closed.reason) == (round(closes * SECOND_NS), CloseReason.UNKNOWN)
    assert tracker.end_session() is None
    opened = tracker.update(600 * SECOND_NS, 0.9)
    assert opened is not None
    assert opened.is_open
