"""Warm-up: the seconds until the first probability, and the inputs that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.live.markets import frame, walk

from volspike.api.schema import WarmUp
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.market import SECOND_NS, Mode, Tick
from volspike.models import DEFAULT_MODEL, TEN_MODEL, Artifact


def warm_ups(live: LivePipeline, ticks: list[Tick]) -> Iterator[WarmUp]:
    """The warm-up after each tick."""
    for tick in ticks:
        live.take(frame(tick))
        yield Dashboard(live).state().products[0].warm_up


def pipeline(artifact: Artifact) -> LivePipeline:
    return LivePipeline(LiveScorer(artifact), ["BTC-USD"], "test", mode=Mode.LIVE)


@pytest.mark.parametrize("model", [TEN_MODEL, DEFAULT_MODEL], ids=["ten", "default"])
def test_seconds_count_down_to_the_first_probability(model: Path) -> None:
    """The seconds fall by one a second and reach 0 with the first probability, whatever the names of the inputs."""
    live = pipeline(Artifact.load(model))
    assert Dashboard(live).snapshot(None)["warm_up"]["seconds"] is None
    seen = list(warm_ups(live, walk(310)))
    points = Dashboard(live).snapshot(None)["points"]
    first = next(i for i, point in enumerate(points) if point["probability"] is not None)
    rows = len(seen) - len(points)  # a model with rows per second has none at the first tick
    assert 300 <= first <= 301
    seconds = [each.seconds for each in seen[rows:]]
    assert seconds == [max(0, first - i) for i in range(len(points))]


def test_missing_inputs_have_a_reason_and_the_time_left() -> None:
    """Inputs of full windows are not missing; the others wait for their own window."""
    live = pipeline(Artifact.load(TEN_MODEL))
    seen = list(warm_ups(live, walk(100)))
    assert {each.reason for each in seen[0].missing} == {f"{w + 1} s of a session must be known" for w in (30, 60, 300)}
    (left,) = seen[-1].missing
    assert all(name.endswith("_300s") for name in left.inputs)
    assert (left.reason, left.seconds, seen[-1].seconds) == ("301 s of a session must be known", 202, 202)


def test_inputs_without_quotes_are_named() -> None:
    """A warm product without quotes has no probability, and the reason is not the time."""
    live = pipeline(Artifact.load(TEN_MODEL))
    nan = float("nan")
    unquoted = {"best_bid": nan, "best_ask": nan, "bid_size": nan, "ask_size": nan}
    *_, last = warm_ups(live, [msgspec.structs.replace(tick, **unquoted) for tick in walk(310)])
    assert last.seconds is None
    assert {each.reason for each in last.missing} >= {"no quote in the window"}
    assert all(each.seconds is None for each in last.missing)


def test_a_new_session_starts_the_warm_up_again() -> None:
    """After a silence that ends the session, the full time is left."""
    live = pipeline(Artifact.load(TEN_MODEL))
    ticks = walk(310)
    later = [
        msgspec.structs.replace(tick, time=tick.time + 3600 * SECOND_NS, received=tick.received + 3600 * SECOND_NS)
        for tick in ticks[:1]
    ]
    seen = list(warm_ups(live, ticks + later))
    assert (seen[-2].seconds, seen[-1].seconds) == (0, 301)
