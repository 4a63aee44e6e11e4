"""The pace of a replay, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import SECOND_NS
from volspike.streams.replay import ReplayProgress, replay
from volspike.streams.wire import Message, tick_message

START = 1_700_000_000 * SECOND_NS


class World:
    """A clock that only waiting and sending move, and a broker that notes when what came."""

    def __init__(self, send_s: float = 0.0, early_s: float = 0.0) -> None:
        self.now = 1000.0
        self.delivered = 0
        self.sent_at: list[float] = []
        self.waits: list[float] = []
        self._send_s = send_s
        self._early_s = early_s

    def clock(self) -> float:
        return self.now

    def serve(self, timeout_s: float = 0.0) -> None:
        """Waits, or comes back early as a poll does when a report comes."""
        self.waits.append(timeout_s)
        self.now += min(timeout_s, self._early_s or timeout_s)

    def send(self, message: Message) -> None:
        self.sent_at.append(self.now - 1000.0)
        self.now += self._send_s


def messages(offsets_s: Iterable[float]) -> list[Message]:
    return [tick_message("BTC-USD", b"x", START + round(offset * SECOND_NS)) for offset in offsets_s]


def run(world: World, offsets_s: Iterable[float], speed: float) -> ReplayProgress:
    progress = ReplayProgress()
    replay(messages(offsets_s), world, speed, progress, clock=world.clock)
    return progress


@given(
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
    st.sampled_from([0.5, 1.0, 10.0]),
    st.sampled_from([0.0, 0.03]),
)
def test_each_message_goes_when_it_is_due(steps: list[float], speed: float, early_s: float) -> None:
    """At any speed a message goes (received − first) / speed after the start, and no error adds up."""
    offsets = [sum(steps[: k + 1]) for k in range(len(steps))]
    world = World(early_s=early_s)
    progress = run(world, offsets, speed)
    due = [(offset - offsets[0]) / speed for offset in offsets]
    assert world.sent_at == pytest.approx(due, abs=1e-6)
    assert progress.sent == len(steps)
    assert progress.market_seconds == pytest.approx(offsets[-1] - offsets[0], abs=1e-6)


def test_a_slow_broker_does_not_shift_what_is_due_later() -> None:
    """What was held up is caught up with: the schedule is the tape's, and not the last message's."""
    world = World(send_s=0.25)
    progress = run(world, [0.0, 0.1, 0.2, 5.0], 1.0)
    assert world.sent_at == pytest.approx([0.0, 0.25, 0.5, 5.0])
    assert progress.behind_s == pytest.approx(0.3)


def test_a_tape_whose_clock_steps_back_waits_no_more_than_it_should() -> None:
    """A message from before goes at once, and is not counted as late by all of the step."""
    world = World()
    progress = run(world, [0.0, 2.0, 1.0, 3.0], 1.0)
    assert world.sent_at == pytest.approx([0.0, 2.0, 2.0, 3.0])
    assert progress.behind_s == pytest.approx(0.0, abs=1e-6)


def test_speed_0_waits_for_nothing() -> None:
    """Hours of a tape go without one wait."""
    world = World()
    progress = run(world, [0.0, 3600.0, 7200.0], 0.0)
    assert (world.waits, world.sent_at, progress.market_seconds) == ([], [0.0, 0.0, 0.0], 7200.0)


def test_a_long_wait_is_made_of_short_ones() -> None:
    """Ctrl-C is seen within a tenth of a second."""
    world = World()
    run(world, [0.0, 60.0], 1.0)
    assert max(world.waits) <= 0.1
