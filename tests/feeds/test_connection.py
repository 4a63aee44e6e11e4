"""Backoff, request limits and proxies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.feeds.connection import Backoff, Pace, parse_address, proxy_for


def test_backoff_doubles_up_to_its_limit() -> None:
    """The ceiling of the wait goes from 250 ms to 30 s by doubling, and a reset brings it back."""
    backoff = Backoff(0.25, 30.0, lambda: 1.0)
    assert [backoff.delay_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.delay_s() == 0.25


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_backoff_stays_within_its_ceiling(draws: list[float]) -> None:
    """For any jitter, a wait is between 0 and the ceiling of its attempt."""
    left = iter(draws)
    backoff = Backoff(0.25, 30.0, lambda: next(left))
    for attempt in range(len(draws)):
        assert 0 <= backoff.delay_s() <= min(30.0, 0.25 * 2**attempt)


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 8))
def test_pace_keeps_the_limit_of_every_second(steps: list[float], limit: int) -> None:
    """However requests come, the one ``limit`` later is at least a second later."""
    pace, now, turns = Pace(limit), 0.0, []
    for step in steps:
        now += step / 10
        turns.append(now + pace.delay_s(now))
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in zip(turns, turns[limit:], strict=False))


def test_pace_delays_only_a_full_second() -> None:
    """A request waits only if the last second is full."""
    pace = Pace(3)
    assert [pace.delay_s(now) for now in (0.0, 0.1, 0.2, 0.5, 2.0)] == [0, 0, 0, 0.5, 0]


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("ws://127.0.0.1:8000/coinbase", None),
        ("ws://localhost:8000", None),
        ("ws://[::1]:8000", None),
        ("ws://10.0.0.1:8000", True),
        ("wss://advanced-trade-ws.coinbase.com", True),
    ],
)
def test_no_proxy_to_this_machine(url: str, proxy: object) -> None:
    """The system's proxy is used for every host except this machine."""
    assert proxy_for(parse_address(url)) is proxy


@pytest.mark.parametrize(("now", "delay"), [(0.75, 0.25), (1.0, 0.0), (1.25, 0.0)])
def test_pace_at_the_end_of_the_second(now: float, delay: float) -> None:
    """Exactly one second after the first of two requests, the third does not wait."""
    pace = Pace(2)
    assert [pace.delay_s(0.0), pace.delay_s(0.5)] == [0.0, 0.0]
    assert pace.delay_s(now) == delay
