"""Rows in order by fold, product and time, and the runs of spikes in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.evaluation.markets import SECOND
from volspike.episodes import Runs, Tracks, spike_runs

runs = st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted)


def tracks(second: list[float], product: list[int] | None = None, fold: list[int] | None = None) -> Tracks:
    n = len(second)
    time = (np.array(second) * SECOND).astype(np.int64)
    return Tracks.of(time, np.array(product or [0] * n, np.int32), np.array(fold or [0] * n, np.int32))


def as_runs(ends: list[int]) -> Runs:
    """Ascending numbers taken in pairs."""
    pairs = np.array(ends[: len(ends) // 2 * 2], np.int64).reshape(-1, 2)
    return Runs(pairs[:, 0], pairs[:, 1])


def spiking(y: list[int]) -> NDArray[np.int8]:
    return np.array(y, np.int8)


def test_spikes_under_a_horizon_apart_are_one_episode() -> None:
    """59 seconds apart share a second of their future; 60 do not."""
    joined = spike_runs(tracks([0, 1, 30, 60]), spiking([0, 1, 0, 1]))
    assert (joined.first.tolist(), joined.last.tolist()) == ([1], [3])
    apart = spike_runs(tracks([0, 1, 30, 61]), spiking([0, 1, 0, 1]))
    assert (apart.first.tolist(), apart.last.tolist()) == ([1, 3], [1, 3])


def test_products_and_folds_have_their_own_episodes() -> None:
    """Spikes of one moment in two markets, or on both sides of a fold's end, are not one."""
    assert len(spike_runs(tracks([0, 0, 1, 1], product=[0, 1, 0, 1]), spiking([1, 1, 1, 1]))) == 2
    assert len(spike_runs(tracks([0, 1, 2, 3], fold=[1, 1, 2, 2]), spiking([1, 1, 1, 1]))) == 2


def test_watched_seconds_leave_out_silences() -> None:
    """A row lasts until the next of its product; nobody watched a silence, nor what follows the last row."""
    it = tracks([0, 1, 11, 100, 101, 5], product=[0, 0, 0, 0, 0, 1])
    assert it.seconds().tolist() == [1.0, 10.0, 0.0, 1.0, 0.0, 0.0]


@given(runs, runs)
def test_runs_meet_where_they_share_a_position(mine: list[int], theirs: list[int]) -> None:
    """The earliest that overlaps, as looking at every pair finds it."""
    ours, others = as_runs(mine), as_runs(theirs)
    pairs = list(zip(others.first, others.last, strict=True))
    expected = [
        next((i for i, (a, b) in enumerate(pairs) if a <= last and b >= first), -1)
        for first, last in zip(ours.first, ours.last, strict=True)
    ]
    assert ours.met_by(others).tolist() == expected


@given(runs)
def test_covered_positions_are_those_of_the_runs(ends: list[int]) -> None:
    """First and last of each run included, nothing else."""
    it = as_runs(ends)
    expected = [any(a <= at <= b for a, b in zip(it.first, it.last, strict=True)) for at in range(61)]
    assert it.covered(61).tolist() == expected
