"""Metrics of the live pipeline and of a feed: all declared, no invented values, bounded series."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from math import isnan
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from tests.live.markets import START, frame, walk

from volspike.errors import MalformedTick
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedState, FeedStats
from volspike.live.dashboard import Dashboard
from volspike.live.metrics import LIVE_METRICS, MAX_PRODUCTS, FeedCollector, FeedCounts
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.market import SECOND_NS, Cause, Gap, Mode
from volspike.models import TEN_MODEL, Artifact
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder
from volspike.tape.upkeep import TapeUpkeep

WARM_S = 3700


class DeadReceiver:
    """A receiver that is down."""

    address = "dead://receiver"

    def send(self, title: str, body: str) -> bool:
        return False


def samples(collector: Collector) -> dict[str, float]:
    """The samples of a collector."""
    registry = CollectorRegistry()
    registry.register(collector)
    lines = (line for line in generate_latest(registry).decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def scorer() -> LiveScorer:
    return LiveScorer(Artifact.load(TEN_MODEL))


@pytest.fixture
def full(tmp_path: Path) -> Iterator[LivePipeline]:
    """A pipeline with all parts."""
    pipeline = LivePipeline(
        scorer(),
        ["BTC-USD"],
        "test",
        mode=Mode.SIMULATED,
        recorder=Recorder(tmp_path / "tape", clock=lambda: START),
        upkeep=TapeUpkeep(tmp_path / "tape"),
        outcomes=OutcomeStore(tmp_path / "outcomes.sqlite"),
        router=AlertRouter(receivers=[DeadReceiver()], attempts=1),
        stats=lambda: FeedStats(ignored=Counter(level2=4), repeated=5, unrequested=6, refused=("X-USD",)),
    )
    yield pipeline
    pipeline.close()


def test_every_declared_metric_is_exposed(full: LivePipeline) -> None:
    """After warm-up and the first performance, every metric is exposed with its kind and meaning."""

    async def lived() -> None:
        for tick in walk(WARM_S):
            full.take(frame(tick))
        await full._evaluate()

    asyncio.run(lived())
    names = {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in samples(full.collector())}
    assert names == {metric.name for metric in LIVE_METRICS}
    registry = CollectorRegistry()
    registry.register(full.collector())
    text = generate_latest(registry).decode()
    for metric in LIVE_METRICS:
        assert f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n" in text


def test_events_are_counted(full: LivePipeline) -> None:
    """Ticks, rows, faults, gaps by cause with their length and losses, reconnects, latency, scores."""
    for attempt, is_connected in enumerate((True, False, True)):
        full.take(FeedState(received=START, is_connected=is_connected, reason="", url="", attempt=attempt + 1))
    full.take(FeedFault(received=START, data=b"", error=MalformedTick("no frame")))
    for tick in walk(WARM_S):
        full.take(frame(msgspec.structs.replace(tick, received=tick.time + SECOND_NS // 5)))
    assert samples(full.collector())['feature_whole{product="BTC-USD"}'] == 1
    end = START + WARM_S * SECOND_NS
    for cause, lost in ((Cause.SEQUENCE, 7), (Cause.SEQUENCE, 2), (Cause.RECONNECT, -1)):
        full.take(Gap(start=end - SECOND_NS // 2, end=end, products=("BTC-USD",), cause=cause, lost=lost))
    full.take(frame(walk(WARM_S + 2)[-1]))
    seen = samples(full.collector())
    assert seen['live_source_info{mode="simulated",simulated="true",source="test"}'] == 1
    assert seen["feed_connected"] == 1
    assert seen["feed_reconnects_total"] == 1
    assert seen["feed_malformed_total"] == 1
    assert seen["feed_frames_total"] == seen['feed_ticks_total{product="BTC-USD"}'] == WARM_S + 1
    assert seen["feed_latency_seconds_count"] == WARM_S + 1
    assert seen['feed_latency_seconds_bucket{le="0.1"}'] == 1
    assert seen['feed_latency_seconds_bucket{le="0.25"}'] == WARM_S + 1
    assert seen["feed_latency_seconds_sum"] == pytest.approx(WARM_S / 5)
    assert {cause: seen[f'feed_gaps_total{{cause="{cause}"}}'] for cause in Cause} == dict.fromkeys(Cause, 0) | {
        Cause.SEQUENCE: 2,
        Cause.RECONNECT: 1,
    }
    assert (seen["feed_repeated_total"], seen["feed_unrequested_ticks_total"]) == (5, 6)
    assert seen["feed_ignored_frames_total"] == 4
    assert seen['feed_refused{product="X-USD"}'] == 1
    assert seen['feed_refused{product="BTC-USD"}'] == 0
    assert Dashboard(full).health()["refused_products"] == Dashboard(full).state().refused_products == ["X-USD"]
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


def test_unknown_values_are_not_exposed() -> None:
    """Before the first row a product has no age, an unknown probability is NaN, and absent parts have no samples."""
    pipeline = LivePipeline(scorer(), ["BTC-USD"], "test", mode=Mode.SIMULATED)
    assert not [
        name for name in samples(pipeline.collector()) if name.startswith(("feature_", "live_p", "outcomes_", "tape_"))
    ]
    pipeline.take(frame(walk(1)[0]))
    seen = samples(pipeline.collector())
    assert isnan(seen['spike_probability{product="BTC-USD"}'])
    assert seen['feature_warm{product="BTC-USD"}'] == 0
    assert seen["score_probability_count"] == 0


def test_an_episode_is_counted_when_it_opens(full: LivePipeline) -> None:
    """One alert that opens and closes is one episode; failed deliveries are counted."""
    calm, wild = walk(WARM_S), walk(WARM_S + 900)[WARM_S:]
    for k, tick in enumerate(wild[:120]):
        wild[k] = msgspec.structs.replace(tick, price=tick.price * (1.02 if k % 2 else 0.98))
    opened = []
    for tick in calm + wild:
        full.take(frame(tick))
        counts = full.counts.products["BTC-USD"]
        opened.append(counts.is_alert_open)
    seen = samples(full.collector())
    assert seen['alert_episodes_total{product="BTC-USD"}'] == 1
    assert any(opened)
    assert seen['alert_open{product="BTC-USD"}'] == opened[-1]
    assert seen['spike_seconds_total{product="BTC-USD"}'] > 60
    assert full.router is not None
    full.router.close()
    assert samples(full.collector())['alert_messages_total{result="given_up"}'] >= 1


def test_series_are_bounded() -> None:
    """With any number of products the series stay bounded: the rest is counted as ``other``."""
    pipeline = LivePipeline(scorer(), ["BTC-USD"], "test", mode=Mode.SIMULATED)
    tick = walk(1)[0]
    sizes = []
    for k in range(MAX_PRODUCTS + 40):
        pipeline.take(frame(msgspec.structs.replace(tick, product_id=f"P{k}-USD")))
        for cause in Cause:
            pipeline.take(Gap(start=0, end=1, products=(f"P{k}-USD",), cause=cause))
        sizes.append(len(samples(pipeline.collector())))
    assert sizes[MAX_PRODUCTS] == sizes[-1]
    assert samples(pipeline.collector())['feed_ticks_total{product="other"}'] == 40


@pytest.mark.parametrize("timed_from", [None, 0, START + 2 * SECOND_NS])
def test_a_feed_has_the_metrics_of_the_pipelines_feed(tmp_path: Path, timed_from: int | None) -> None:
    """The same events give the same metrics of feed and tape without a pipeline."""
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
    pipeline = LivePipeline(
        scorer(), ["BTC-USD"], "test", mode=Mode.SIMULATED, timed_from=timed_from, recorder=recorder
    )
    counts = FeedCounts(timed_from)
    for event in events:
        pipeline.take(event)
        counts.add(event)
    recorder.close()
    feed = samples(FeedCollector("test", mode=Mode.SIMULATED, counts=counts, recorder=recorder))
    live = samples(pipeline.collector())
    for each in (feed, live):
        each.pop("feed_silence_seconds")  # the time since the last frame
        each.pop('feed_session_silence_seconds{feed=""}')
    assert feed["feed_reconnects_total"] == 1
    assert feed == {name: live[name] for name in live if name.startswith(("feed_", "tape_", "live_source"))}
