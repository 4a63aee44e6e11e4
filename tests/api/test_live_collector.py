"""The live pipeline as Prometheus sees it: everything declared, nothing made up, and never more series than bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from math import isnan
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.api.markets import START, frame, walk

from volspike.errors import MalformedTick
from volspike.feeds.events import FeedFault, FeedState
from volspike.live import pipeline as live
from volspike.live.collector import LiveCollector
from volspike.live.metrics import DECLARED, MOST_PRODUCTS
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.market import SECOND_NS, Cause, Gap
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

WARM_S = 3700


class DeadReceiver:
    """Takes nothing."""

    address = "dead://receiver"

    def send(self, title: str, body: str) -> bool:
        return False


def told(pipeline: LivePipeline) -> dict[str, float]:
    """Each line of the pipeline's metrics."""
    registry = CollectorRegistry()
    registry.register(LiveCollector(pipeline))
    lines = (line for line in generate_latest(registry).decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def scorer() -> LiveScorer:
    return LiveScorer(Artifact.load(DEFAULT_MODEL))


@pytest.fixture
def full(tmp_path: Path) -> Iterator[LivePipeline]:
    """A pipeline with all its parts."""
    pipeline = LivePipeline(
        scorer(),
        ["BTC-USD"],
        "test",
        simulated=True,
        recorder=Recorder(tmp_path / "tape", clock=lambda: START),
        outcomes=OutcomeStore(tmp_path / "outcomes.sqlite"),
        router=AlertRouter(receivers=[DeadReceiver()], attempts=1),
    )
    yield pipeline
    pipeline._close()


def test_everything_declared_is_told(full: LivePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A market that warmed up, lost something and was judged has every metric, with kind and sentence."""
    monkeypatch.setattr(live, "PERFORMANCE_EVERY_S", 0.0)

    async def lived() -> None:
        for tick in walk(WARM_S):
            full.take(frame(tick))
        showing = asyncio.create_task(full._show_performance())
        async with asyncio.timeout(10):
            while not full.performance:
                await asyncio.sleep(0)
        showing.cancel()

    asyncio.run(lived())
    names = {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in told(full)}
    assert names == {metric.name for metric in DECLARED}
    registry = CollectorRegistry()
    registry.register(LiveCollector(full))
    text = generate_latest(registry).decode()
    for metric in DECLARED:
        assert f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n" in text


def test_what_happens_is_counted(full: LivePipeline) -> None:
    """Ticks, rows, faults, gaps by cause with their length and losses, reconnects, latency, scores."""
    for attempt, is_connected in enumerate((True, False, True)):
        full.take(FeedState(received=START, is_connected=is_connected, reason="", url="", attempt=attempt + 1))
    full.take(FeedFault(received=START, data=b"", error=MalformedTick("no frame")))
    for tick in walk(WARM_S):
        full.take(frame(msgspec.structs.replace(tick, received=tick.time + SECOND_NS // 5)))
    assert told(full)['feature_whole{product="BTC-USD"}'] == 1
    end = START + WARM_S * SECOND_NS
    for cause, lost in ((Cause.SEQUENCE, 7), (Cause.SEQUENCE, 2), (Cause.RECONNECT, -1)):
        full.take(Gap(start=end - SECOND_NS // 2, end=end, products=("BTC-USD",), cause=cause, lost=lost))
    full.take(frame(walk(WARM_S + 2)[-1]))
    seen = told(full)
    assert seen['live_source_info{simulated="true",source="test"}'] == 1
    assert seen["feed_connected"] == 1
    assert seen["feed_reconnects_total"] == 1
    assert seen["feed_malformed_total"] == 1
    assert seen["feed_frames_total"] == seen['feed_ticks_total{product="BTC-USD"}'] == WARM_S + 1
    assert seen["feed_latency_seconds_count"] == WARM_S + 1
    assert seen['feed_latency_seconds_bucket{le="0.1"}'] == 1
    assert seen['feed_latency_seconds_bucket{le="0.25"}'] == WARM_S + 1
    assert seen["feed_latency_seconds_sum"] == pytest.approx(WARM_S / 5)
    assert {cause: seen[f'feed_gaps_total{{cause="{cause}"}}'] for cause in Cause} == {
        Cause.SEQUENCE: 2,
        Cause.SILENCE: 0,
        Cause.RECONNECT: 1,
        Cause.RESTART: 0,
        Cause.OVERFLOW: 0,
    }
    assert seen['feed_gap_seconds_total{cause="sequence"}'] == 1
    assert seen["feed_lost_messages_total"] == 9
    assert seen['feature_whole{product="BTC-USD"}'] == 0
    assert seen['feature_warm{product="BTC-USD"}'] == 1
    assert seen["score_latency_seconds_count"] == WARM_S + 1
    assert 0 <= seen['feature_age_seconds{product="BTC-USD"}'] < 60
    assert 0 <= seen["feed_silence_seconds"] < 60
    assert seen["score_probability_count"] > 0
    assert 0 < seen['spike_probability{product="BTC-USD"}'] < 1
    assert seen["tape_recording"] == 1


def test_what_is_not_known_is_not_made_up() -> None:
    """Before the first row a product has no age, no probability is 0, and parts that are absent have no metrics."""
    pipeline = LivePipeline(scorer(), ["BTC-USD"], "test", simulated=True)
    assert not [name for name in told(pipeline) if name.startswith(("feature_", "live_p", "outcomes_", "tape_"))]
    pipeline.take(frame(walk(1)[0]))
    seen = told(pipeline)
    assert isnan(seen['spike_probability{product="BTC-USD"}'])
    assert seen['feature_warm{product="BTC-USD"}'] == 0
    assert seen["score_probability_count"] == 0


def test_an_episode_is_counted_when_it_opens(full: LivePipeline) -> None:
    """One alert that opens and closes is one episode, open in between; what its receiver refuses is told as well."""
    calm, wild = walk(WARM_S), walk(WARM_S + 900)[WARM_S:]
    for k, tick in enumerate(wild[:120]):
        wild[k] = msgspec.structs.replace(tick, price=tick.price * (1.02 if k % 2 else 0.98))
    opened = []
    for tick in calm + wild:
        full.take(frame(tick))
        counts = full.counts.products["BTC-USD"]
        opened.append(counts.is_alert_open)
    seen = told(full)
    assert seen['alert_episodes_total{product="BTC-USD"}'] == 1
    assert any(opened)
    assert seen['alert_open{product="BTC-USD"}'] == opened[-1]
    assert seen['spike_seconds_total{product="BTC-USD"}'] > 60
    assert full.router is not None
    full.router.close()
    assert told(full)['alert_messages_total{result="given_up"}'] >= 1


def test_series_are_bounded() -> None:
    """However many products a tape holds, series stop growing: the rest is one product, ``other``."""
    pipeline = LivePipeline(scorer(), ["BTC-USD"], "test", simulated=True)
    tick = walk(1)[0]
    sizes = []
    for k in range(MOST_PRODUCTS + 40):
        pipeline.take(frame(msgspec.structs.replace(tick, product_id=f"P{k}-USD")))
        for cause in Cause:
            pipeline.take(Gap(start=0, end=1, products=(f"P{k}-USD",), cause=cause))
        sizes.append(len(told(pipeline)))
    assert sizes[MOST_PRODUCTS] == sizes[-1]
    assert told(pipeline)['feed_ticks_total{product="other"}'] == 40
