"""A feed that is listened to and not scored, as Prometheus sees it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.api.markets import START, frame, walk

from volspike.errors import MalformedTick
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedState
from volspike.live.collector import FeedCollector, FeedWatch, LiveCollector
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.market import SECOND_NS, Cause, Gap
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.tape.recorder import Recorder


def told(collector: FeedCollector | LiveCollector) -> dict[str, float]:
    """Each line, but those that tell how long ago something was."""
    registry = CollectorRegistry()
    registry.register(collector)
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines) if "_silence_" not in name}


@pytest.mark.parametrize("timed_from", [None, 0, START + 2 * SECOND_NS])
def test_it_counts_what_the_pipeline_counts(tmp_path: Path, timed_from: int | None) -> None:
    """The same events give the same metrics of feed and tape as in a pipeline that scores."""
    late = [msgspec.structs.replace(tick, received=tick.time + SECOND_NS // 9) for tick in walk(5)]
    events: list[FeedEvent] = [
        FeedState(received=START, is_connected=True, reason="", url="", attempt=1),
        *map(frame, late),
        FeedFault(received=START, data=b"", error=MalformedTick("no frame")),
        Gap(start=START, end=START + 3 * SECOND_NS, products=("BTC-USD",), cause=Cause.SILENCE, lost=4),
        FeedError(received=START, reason="no such product"),
        FeedState(received=START, is_connected=False, reason="", url="", attempt=1),
        FeedState(received=START, is_connected=True, reason="", url="", attempt=2),
    ]
    recorder = Recorder(tmp_path, clock=lambda: START)
    scorer = LiveScorer(Artifact.load(DEFAULT_MODEL))
    pipeline = LivePipeline(scorer, ["BTC-USD"], "test", simulated=True, timed_from=timed_from, recorder=recorder)
    watch = FeedWatch(timed_from)
    for event in events:
        pipeline.take(event)
        watch.take(event)
    recorder.close()
    feed = told(FeedCollector("test", simulated=True, watch=watch, recorder=recorder))
    whole = told(LiveCollector(pipeline))
    assert feed["feed_reconnects_total"] == 1
    assert feed == {name: whole[name] for name in whole if name.startswith(("feed_", "tape_", "live_source"))}
