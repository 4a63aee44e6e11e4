"""Episodes: one spike is one alert, whatever the probability does around the threshold."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.episodes import Episode, EpisodeTracker, Reason, episode_id
from volspike.errors import UsageError

SECOND = 1_000_000_000

probabilities = st.one_of(st.none(), st.just(nan), st.floats(0.0, 1.0))
steps = st.tuples(st.integers(-200 * SECOND, 200 * SECOND), probabilities)


def tracker(hold_s: float = 30.0, quiet_s: float = 5.0) -> EpisodeTracker:
    return EpisodeTracker(0.5, product="BTC-USD", hold_s=hold_s, quiet_s=quiet_s)


def run(it: EpisodeTracker, rows: list[tuple[float, float | None]]) -> list[Episode]:
    """Events of rows (seconds, probability)."""
    events = [it.update(round(at * SECOND), probability) for at, probability in rows]
    return [event for event in events if event is not None]


@given(st.lists(steps, max_size=80), st.floats(0, 120), st.floats(0, 20))
def test_episodes_never_overlap_and_last_their_hold(rows: list[tuple[int, float]], hold: float, quiet: float) -> None:
    """Whatever comes, in whatever order, opens and closes take turns and every episode lasts at least the hold."""
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
        last = event


@given(st.lists(st.tuples(st.integers(0, 5 * SECOND), st.floats(0.41, 1.0)), min_size=1, max_size=200))
def test_flickering_around_the_threshold_is_one_episode(rows: list[tuple[int, float]]) -> None:
    """A probability that crosses the threshold again and again without falling to the release opens one episode."""
    it, now, events = tracker(), 10**18, []
    for step, probability in [(0, 0.6), *rows]:
        now += step
        events.append(it.update(now, probability))
    assert sum(event is not None for event in events) == 1


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND), probabilities), max_size=80))
def test_ids_sort_by_time_and_are_the_same_again(rows: list[tuple[int, float]]) -> None:
    """The same rows give the same ids, and later episodes have greater ones."""

    def ids() -> list[str]:
        it, now, told = tracker(0, 0), 10**18, []
        for step, probability in rows:
            now += step + 1
            event = it.update(now, probability)
            told += [event.id] if event is not None and event.is_open else []
        return told

    assert ids() == sorted(set(ids()))


def test_an_episode_closes_after_hold_and_quiet() -> None:
    """It closes at the first row that is quiet long enough and past the hold, with its peak."""
    events = run(tracker(), [(0, 0.49), (1, 0.5), (2, 0.9), (10, 0.3), (14, 0.45), (25, 0.3), (30, 0.2), (31, 0.1)])
    opened, closed = events
    assert (opened.opened, opened.closed, opened.reason) == (SECOND, None, None)
    assert (closed.closed, closed.reason, closed.peak_probability) == (31 * SECOND, Reason.RELEASED, 0.9)


def test_unknown_neither_opens_nor_closes() -> None:
    """None, NaN and infinity change nothing for a while."""
    it = tracker(hold_s=0, quiet_s=0)
    assert run(it, [(0, None), (1, nan), (2, inf)]) == []
    assert len(run(it, [(3, 0.7), (4, None), (20, nan), (62, nan)])) == 1
    assert it.current is not None


def test_a_long_unknown_closes_with_that_reason() -> None:
    """60 s without a known probability close an episode, whether rows came or nothing at all."""
    for rows in ([(30.0, nan), (61.0, nan)], [(61.0, 0.9)]):
        events = run(tracker(), [(1.0, 0.7), *rows])
        assert [event.reason for event in events] == [None, Reason.UNKNOWN]


def test_late_rows_count_as_of_now() -> None:
    """A small step back neither shortens nor prolongs an episode."""
    events = run(tracker(), [(100, 0.7), (95, 0.9), (132, 0.1), (120, 0.1), (137, 0.1)])
    assert [event.closed for event in events] == [None, 137 * SECOND]


def test_a_long_step_back_begins_anew() -> None:
    """When time starts again far back the open episode closes, and the next can open at the new time."""
    events = run(tracker(), [(1000, 0.7), (1010, 0.7), (10, 0.9), (11, 0.9)])
    assert [(event.opened // SECOND, event.reason) for event in events] == [
        (1000, None),
        (1000, Reason.CLOCK),
        (11, None),
    ]
    assert run(tracker(), [(1000, 0.1), (10, 0.9)])[0].opened == 10 * SECOND


def test_id_sorts_by_time_across_products() -> None:
    """The time stands first, in fixed digits."""
    assert episode_id("ETH-USD", 999_999_999) < episode_id("BTC-USD", SECOND)


@pytest.mark.parametrize(
    "settings",
    [{"release": 0.5}, {"release": 0.0}, {"release": nan}, {"hold_s": -1.0}, {"quiet_s": nan}, {"unknown_s": 0.0}],
)
def test_senseless_settings_are_refused(settings: dict[str, float]) -> None:
    """A release at or above the threshold, or a negative time, is a mistake."""
    with pytest.raises(UsageError):
        EpisodeTracker(0.5, product="BTC-USD", **settings)
