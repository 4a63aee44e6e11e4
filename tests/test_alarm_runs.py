"""Alarm episodes over recorded rows are those of the live market, row by row."""

from __future__ import annotations

from math import inf, nan

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.markets import SECOND
from volspike.episodes import EpisodeTracker, Tracks, alarm_runs

rows = st.lists(
    st.tuples(st.integers(0, 90), st.one_of(st.just(nan), st.sampled_from([0.0, 0.39, 0.4, 0.45, 0.5, 0.9]))),
    max_size=120,
)


def tracks_of(second: list[int]) -> Tracks:
    return Tracks.of(np.array(second, np.int64) * SECOND, np.zeros(len(second), np.int32))


@given(rows)
def test_episodes_are_those_of_the_live_market(told: list[tuple[int, float]]) -> None:
    """The same rows open and close the same episodes here and in the tracker that alerts go by."""
    second = np.cumsum([step for step, _ in told]).astype(int).tolist()
    tracker, in_force, opened = EpisodeTracker(0.5, product="BTC-USD"), [], []
    for at, (_, probability) in zip(second, told, strict=True):
        tracker.update(at * SECOND, probability)
        in_force.append(tracker.current is not None)
        opened.append(tracker.current.opened if tracker.current else None)
    found = alarm_runs(tracks_of(second), np.array([p for _, p in told]), 0.5)
    assert found.covered(len(second)).tolist() == in_force
    assert [second[at] * SECOND for at in found.first] == [
        at for at, before in zip(opened, [None, *opened], strict=False) if at is not None and at != before
    ]


def test_each_track_begins_without_an_alarm() -> None:
    """An alarm of one product is none of the next, at thresholds of their own."""
    tracks = Tracks.of(np.array([0, 1, 0, 1]) * SECOND, np.array([0, 0, 1, 1], np.int32))
    found = alarm_runs(tracks, np.array([0.6, 0.6, 0.6, 0.8]), np.array([0.5, 0.5, 0.7, 0.7]))
    assert (found.first.tolist(), found.last.tolist()) == ([0, 3], [1, 3])


def test_thresholds_that_no_probability_has() -> None:
    """Nothing reaches an infinite threshold; one that is not above 0 lets go where it takes hold."""
    tracks = tracks_of(list(range(0, 200, 5)))
    score = np.where(np.arange(40) < 2, -0.5, -1.1)
    assert len(alarm_runs(tracks, score, inf)) == 0
    assert alarm_runs(tracks, score, -1.0).last.tolist() == [11]
