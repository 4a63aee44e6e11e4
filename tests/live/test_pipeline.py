"""The live pipeline: equal to replay, alerts, outcomes, snapshots, and replacement of the model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import structlog
from tests.live.markets import START, frame, walk

from volspike.background import BackgroundTask, Periodic
from volspike.config import FeedSettings
from volspike.errors import SchemaMismatch, UsageError
from volspike.features import FeatureRow
from volspike.feeds.events import FeedEvent, FeedState, SessionEnd
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import Faults
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.live.sources import open_source
from volspike.market import SECOND_NS, Cause, Gap, Kind, Mode, Tick, Ticks, format_time
from volspike.models import TEN_MODEL, Artifact
from volspike.models.metadata import MarketFacts
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape import Ledger, read_ticks, write_ndjson
from volspike.tape.recorder import Recorder

PAIRS = ("BTC-USD", "ETH-USD")


class Remembering(LiveScorer):
    """A scorer that keeps its scored rows."""

    def __init__(self) -> None:
        super().__init__(Artifact.load(TEN_MODEL))
        self.scored: list[ScoredRow] = []

    def update(self, tick: Tick) -> list[ScoredRow]:
        rows = super().update(tick)
        self.scored += rows
        return rows


def bits(rows: Iterable[ScoredRow]) -> dict[str, list[tuple[object, ...]]]:
    """Rows and scores by product, floats as bytes."""
    rows_of: dict[str, list[tuple[object, ...]]] = {}
    for row, probability, *_ in rows:
        rows_of.setdefault(row.product_id, []).append(
            (row.timestamp, row.session_id, row.is_warm, row.is_whole, row.values.tobytes(), repr(probability))
        )
    return rows_of


async def live(folder: Path, scorer: LiveScorer, faults: Faults) -> LivePipeline:
    """The complete pipeline on a simulated market of seven minutes at full speed."""
    market = SimulatedExchangeSettings(products=PAIRS, seconds=420, speed=0, start=START, subscribes=3, faults=faults)
    async with SimulatedExchange(market) as exchange:
        settings = FeedSettings(products=PAIRS, url=exchange.url("coinbase"))
        async with FeedSession(settings) as session:
            recorder = Recorder(folder, simulated=True)
            pipeline = LivePipeline(scorer, PAIRS, "simulated", mode=Mode.SIMULATED, recorder=recorder)
            running = asyncio.create_task(pipeline.run(session.events()))
            await exchange.is_over.wait()
            async with asyncio.timeout(30):  # frames in flight when the market ends are still to be read
                while Dashboard(pipeline).health()["is_connected"]:
                    await asyncio.sleep(0.01)
            await session.aclose()
            await running
    return pipeline


@pytest.mark.parametrize("faults", [Faults(), Faults(malformed=0.002, drop=0.002, damage=0.004, mistime=0.002)])
def test_the_recorded_tape_replays_to_the_same_rows_and_scores(tmp_path: Path, faults: Faults) -> None:
    """Replaying the live tape gives bit-equal rows and scores, including gaps."""
    scorer = Remembering()
    pipeline = asyncio.run(live(tmp_path, scorer, faults))
    assert Dashboard(pipeline).health()["ticks"] > 2000
    again, gaps = LiveScorer(Artifact.load(TEN_MODEL)), Ledger.read(tmp_path)
    replayed: list[ScoredRow] = []
    for ticks in read_ticks([tmp_path]):
        for tick in ticks:
            while gaps and gaps[0].end <= tick.received:
                again.mark_gap(gaps.pop(0))
            replayed += again.update(tick)
    assert bits(replayed) == bits(scorer.scored)
    assert {gap.cause for gap in Ledger.read(tmp_path)} >= ({Cause.MALFORMED} if faults.malformed else set())
    assert sum(not math.isnan(row.probability) for row in scorer.scored) > 300


def pipeline() -> LivePipeline:
    return LivePipeline(LiveScorer(Artifact.load(TEN_MODEL)), ["BTC-USD"], "test", mode=Mode.SIMULATED)


def test_probabilities_are_null_during_warm_up() -> None:
    """For 301 seconds the probability is null, then it is a number; features without a full window are null."""
    live = pipeline()
    for tick in walk(310):
        live.take(frame(tick))
    points = Dashboard(live).snapshot(None)["points"]
    assert [point["probability"] is None for point in points] == [True] * 301 + [False] * 9
    assert points[20]["features"]["realized_volatility_300s"] is None
    assert all(0.0 <= point["probability"] <= 1.0 for point in points[301:])


def test_a_gap_is_counted_and_marks_rows() -> None:
    """Rows after a data loss have ``is_whole`` false."""
    live = pipeline()
    ticks = walk(20)
    for tick in ticks[:10]:
        live.take(frame(tick))
    live.take(Gap(start=ticks[9].received, end=ticks[10].received, products=("BTC-USD",), cause=Cause.SEQUENCE, lost=3))
    live.take(frame(ticks[10]))
    whole = [point["is_whole"] for point in Dashboard(live).snapshot("BTC-USD")["points"]]
    assert whole == [True] * 10 + [False]
    assert Dashboard(live).health()["gaps"] == 1


def test_a_feed_that_shows_no_loss_is_named() -> None:
    """It is no gap and marks no row, but the page names its products."""
    live = pipeline()
    ticks = walk(20)
    blind = Gap(
        start=ticks[0].received,
        end=ticks[10].received,
        products=("BTC-USD",),
        cause=Cause.UNVERIFIABLE,
        verifiable=False,
    )
    for tick in ticks[:10]:
        live.take(frame(tick))
    assert Dashboard(live).health()["unverifiable"] == []
    live.take(blind)
    live.take(frame(ticks[10]))
    assert all(point["is_whole"] for point in Dashboard(live).snapshot("BTC-USD")["points"])
    assert Dashboard(live).health()["gaps"] == 0
    assert Dashboard(live).health()["unverifiable"] == ["BTC-USD"]


def test_a_snapshot_is_json() -> None:
    """A snapshot is plain JSON; an unknown product is a usage error."""
    live = pipeline()
    live.take(FeedState(received=START, is_connected=True, reason="subscribed", url="ws://x", attempt=1))
    for tick in walk(5):
        live.take(frame(tick))
    told = msgspec.json.decode(msgspec.json.encode(Dashboard(live).snapshot(None)))
    assert told["simulated"]
    assert told["health"]["is_connected"]
    assert told["health"]["latency_ms"]["p50"] == 0.0
    with pytest.raises(UsageError, match="DOGE-USD"):
        Dashboard(live).snapshot("DOGE-USD")
    kinds = [text.partition(":")[0] for text in told["model"]["limitations"]]
    assert kinds == ["few events", "SIMULATED"]
    assert (told["model"]["split_method"], told["model"]["venues"]) == ("walk_forward", ["coinbase"])
    assert told["model"]["has_evidence"]


@pytest.mark.parametrize("name", ["rows", "health", "performance", "calibration"])
def test_an_error_of_a_periodic_task_does_not_end_it(name: str, tmp_path: Path) -> None:
    """Each periodic task goes on after one error, and events are processed meanwhile."""
    live = LivePipeline(
        LiveScorer(Artifact.load(TEN_MODEL)),
        ["BTC-USD"],
        "test",
        mode=Mode.SIMULATED,
        recorder=Recorder(tmp_path, simulated=True),
        outcomes=OutcomeStore(tmp_path / "outcomes.sqlite"),
        calibration=tmp_path / "calibration",
    )
    live.periodic += Dashboard(live).periodic
    (position,) = (index for index, each in enumerate(live.periodic) if each.task.name == name)
    step, calls, errors = live.periodic[position].step, [0], [RuntimeError("unexpected")]

    async def failing_once() -> None:
        if errors:
            raise errors.pop()
        await step()
        calls[0] += 1

    task = BackgroundTask(name, first_pause_s=0.0)
    live.periodic[position] = Periodic(task, failing_once, 0.0)

    async def events() -> AsyncIterator[FeedEvent]:
        async with asyncio.timeout(10):
            while calls[0] < 2:
                yield frame(walk(1)[0])
                await asyncio.sleep(0)

    asyncio.run(live.run(events()))
    assert (task.faults, task.error) == (1, None)
    assert live.counts.frames > 1
    assert name in [each.name for each in live.tasks]


def test_an_error_of_the_processing_is_raised_as_it_is() -> None:
    """An error in the main loop ends the pipeline with that error, after its parts are closed."""
    closed: list[str] = []

    class Part:
        tasks = ()

        def close(self) -> None:
            closed.append("closed")
            raise RuntimeError("not closed")

    async def events() -> AsyncIterator[FeedEvent]:
        yield frame(walk(1)[0])
        raise SchemaMismatch("other rows")

    live = pipeline()
    live.router = live.outcomes = cast("Any", Part())
    with pytest.raises(SchemaMismatch, match="other rows"):
        asyncio.run(live.run(events()))
    assert closed == ["closed", "closed"]


def test_readers_receive_rows_and_health_until_the_end() -> None:
    """A reader receives rows within a second, health, and the end of the stream when the source ends."""

    async def events() -> AsyncIterator[FeedEvent]:
        for tick in walk(4):
            yield frame(tick)
            await asyncio.sleep(0.3)

    async def watched() -> list[tuple[str, Any]]:
        live = pipeline()
        live.periodic += Dashboard(live).periodic
        watcher = live.publisher.subscribe()
        running = asyncio.create_task(live.run(events()))
        told = [(name, msgspec.json.decode(data)) async for name, data in watcher]
        await running
        return told

    told = asyncio.run(watched())
    prices = [data["price"] for name, data in told if name == "tick"]
    assert prices == [pytest.approx(100.0 + 0.01 * k) for k in range(len(prices))]
    assert len(prices) >= 3
    assert any(name == "health" for name, _ in told)


class Alarming(LiveScorer):
    """A scorer whose probability is high from the fifth second to the tenth."""

    def score(self, row: FeatureRow) -> ScoredRow:
        probability = 0.9 if 5 <= row.timestamp // SECOND_NS - START // SECOND_NS < 10 else 0.01
        return super().score(row)._replace(probability=probability)


class Rising(LiveScorer):
    """A scorer whose probability rises by a hundredth a second."""

    def score(self, row: FeatureRow) -> ScoredRow:
        probability = 0.5 + 0.01 * (row.timestamp // SECOND_NS - START // SECOND_NS)
        return super().score(row)._replace(probability=probability)


def test_an_open_alert_shows_its_peak_so_far() -> None:
    """A page that opens during an alert shows its highest probability so far."""
    live = LivePipeline(Rising(Artifact.load(TEN_MODEL)), ["BTC-USD"], "test", mode=Mode.SIMULATED)
    for tick in walk(20):
        live.take(frame(tick))
    told = Dashboard(live).snapshot(None)
    (alert,) = told["alerts"]
    assert alert["state"] == "open"
    assert alert["peak_probability"] == told["points"][-1]["probability"] > told["points"][0]["probability"]


class Pager:
    """A receiver that keeps titles and bodies."""

    address = "pager"

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.bodies: list[str] = []

    def send(self, title: str, body: str) -> bool:
        self.titles.append(title)
        self.bodies.append(body)
        return True


def test_an_alert_closes_while_no_row_arrives() -> None:
    """With the feed down for a minute, an open alert closes by the clock, on the page and at the receivers."""
    pager = Pager()
    router = AlertRouter(receivers=[pager])
    live = LivePipeline(Rising(Artifact.load(TEN_MODEL)), ["BTC-USD"], "test", mode=Mode.SIMULATED, router=router)
    for tick in walk(20):
        live.take(frame(tick))
    product = live.products["BTC-USD"]
    for away_s, state in ((59, "open"), (61, "closed")):
        product.row_at = time.perf_counter_ns() - away_s * SECOND_NS
        asyncio.run(live._expire_alerts())
        assert [alert["state"] for alert in Dashboard(live).snapshot(None)["alerts"]] == [state]
    assert router.close(10.0)
    assert [title.rpartition(" ")[2] for title in pager.titles] == ["likely", "closed"]
    replayed = LivePipeline(
        Rising(Artifact.load(TEN_MODEL)), ["BTC-USD"], "tape", mode=Mode.REPLAY, timed_from=None, router=router
    )
    assert "alert expiry" in [task.name for task in live.tasks]
    assert "alert expiry" not in [task.name for task in replayed.tasks]  # its time is not ours


def test_one_spike_is_one_alert_on_page_and_receivers(tmp_path: Path) -> None:
    """A probability that rises and falls is one alert that opens and closes; predictions get outcomes later."""
    pager, outcomes = Pager(), OutcomeStore(tmp_path / "outcomes.sqlite")
    router = AlertRouter(receivers=(pager,))
    scorer = Alarming(Artifact.load(TEN_MODEL))
    live = LivePipeline(scorer, ["BTC-USD"], "test", mode=Mode.SIMULATED, router=router, outcomes=outcomes)
    for tick in walk(200):
        live.take(frame(tick))
    (alert,) = Dashboard(live).snapshot(None)["alerts"]
    assert (alert["state"], alert["peak_probability"]) == ("closed", 0.9)
    assert alert["opened"] == (START + 5 * SECOND_NS) // 1_000_000
    assert router.close()
    assert outcomes.flush()
    judged = outcomes.performance(START)
    assert outcomes.close()
    assert len(pager.titles) == 2
    assert all("SIMULATED" in title for title in pager.titles)
    assert all("SIMULATED: trained on a real market and used on a simulated one" in body for body in pager.bodies)
    assert judged.rows == 139  # the last 60 seconds and the unfinished one have no outcome yet


class Insistent(LiveScorer):
    """A scorer whose probability is always high."""

    def score(self, row: FeatureRow) -> ScoredRow:
        return super().score(row)._replace(probability=0.9)


def test_the_end_of_a_session_closes_the_alert() -> None:
    """An alert that is open where a session of a tape ends closes when a silence closes it, and is no alert later."""
    pager = Pager()
    router = AlertRouter(receivers=(pager,))
    scorer = Insistent(Artifact.load(TEN_MODEL))
    live = LivePipeline(scorer, ["BTC-USD"], "test", mode=Mode.REPLAY, router=router)
    ticks = walk(90)
    for tick in ticks:
        live.take(frame(tick))
    live.take(SessionEnd(last=ticks[-1].received, next=ticks[-1].received + 3600 * SECOND_NS))
    (alert,) = Dashboard(live).snapshot(None)["alerts"]
    assert (alert["state"], alert["mode"], alert["simulated"]) == ("closed", "replay", False)
    assert alert["closed"] == (ticks[-1].time + 60 * SECOND_NS) // 1_000_000
    assert router.close()
    assert pager.titles == [
        "REPLAY BTC-USD: volatility spike likely",
        "REPLAY BTC-USD: volatility spike alert closed",
    ]


def test_an_alert_closes_with_its_session_after_a_change_of_the_model() -> None:
    """The closed alert is shown although the new model has scored no row yet."""
    live = LivePipeline(Insistent(Artifact.load(TEN_MODEL)), ["BTC-USD"], "test", mode=Mode.REPLAY)
    ticks = walk(90)
    for tick in ticks:
        live.take(frame(tick))
    live.adopt(Artifact.load(TEN_MODEL))
    live.take(SessionEnd(last=ticks[-1].received, next=ticks[-1].received + 3600 * SECOND_NS))
    (alert,) = Dashboard(live).snapshot(None)["alerts"]
    assert alert["state"] == "closed"


def test_the_end_of_a_tape_is_shown_until_the_pipeline_is_stopped(tmp_path: Path) -> None:
    """After a replay alerts are closed, the end is logged, health reports it, and readers stay connected."""
    write_ndjson([Ticks.of(walk(90))], tmp_path / "ticks.ndjson")

    async def run() -> tuple[LivePipeline, list[dict[str, Any]]]:
        async with open_source(f"tape:{tmp_path}", FeedSettings(), speed=0.0) as source:
            scorer = Insistent(Artifact.load(TEN_MODEL))
            live = LivePipeline(scorer, source.products, source.name, mode=source.mode, replay=source.replay)
            live.periodic += Dashboard(live).periodic
            reader = live.publisher.subscribe()
            running = asyncio.create_task(live.run(source.events))
            seen: list[dict[str, Any]] = []
            async with asyncio.timeout(30):
                async for name, data in reader:
                    if name == "health":
                        seen.append(msgspec.json.decode(data))
                    if sum(health["replay"]["is_ended"] for health in seen) == 2:
                        break
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return live, seen

    with structlog.testing.capture_logs() as logs:
        live, seen = asyncio.run(run())
    assert seen[-1]["replay"]["fraction"] == 1.0
    assert (seen[-1]["mode"], seen[-1]["is_connected"], seen[-1]["reason"]) == ("replay", False, "the replay has ended")
    assert [alert["state"] for alert in Dashboard(live).snapshot(None)["alerts"]] == ["closed"]
    (ended,) = [entry for entry in logs if entry["event"] == "replay_ended"]
    assert (ended["ticks"], ended["sessions"], ended["rejected_lines"]) == (90, 1, 0)
    state = Dashboard(live).state()
    assert (state.mode, state.simulated, state.replay and state.replay.is_ended) == (Mode.REPLAY, False, True)


@pytest.mark.parametrize(
    ("mode", "market", "ends", "expected"),
    [
        (Mode.REPLAY, "coinbase:BTC-USD", 9, [True] * 10 + [False] * 10),
        (Mode.REPLAY, "coinbase:ETH-USD", 9, [False] * 20),
        (Mode.REPLAY, "gemini:BTC-USD", 9, [False] * 20),
        (Mode.SIMULATED_REPLAY, "coinbase:BTC-USD", 9, [False] * 20),
    ],
)
def test_rows_within_the_data_of_the_model_are_in_sample(
    mode: Mode, market: str, ends: int, expected: list[bool]
) -> None:
    """Rows of a product and time that the model's data includes are marked, up to its last time, and logged once.

    A model of a real market has no data of a simulated one, whatever the time, nor of the product at another venue.
    """
    venue, product = market.split(":")
    known = Artifact.load(TEN_MODEL).metadata
    span = {"start": format_time(START), "end": format_time(START + ends * SECOND_NS)}
    artifact = twin(
        data=msgspec.structs.replace(known.data, **span),
        products=(product,),
        markets=(MarketFacts(venue=venue, product=product, **span),),
        simulated=False,
    )
    live = LivePipeline(LiveScorer(artifact), ["BTC-USD"], "test", mode=mode)
    with structlog.testing.capture_logs() as logs:
        for tick in walk(20):
            live.take(frame(tick))
    assert [point["is_in_sample"] for point in Dashboard(live).snapshot(None)["points"]] == expected
    assert [entry["event"] for entry in logs].count("in_sample") == any(expected)
    assert Dashboard(live).state().products[0].is_in_sample == expected[-1]


def test_a_source_without_the_required_ticks_is_refused() -> None:
    """A model with features of quotes is not served on trades alone; a source with both is accepted."""
    scorer = LiveScorer(Artifact.load(TEN_MODEL))
    scorer.check_source({Kind.TICKER, Kind.TRADE})
    with pytest.raises(SchemaMismatch, match=r"needs quotes.*missing: spread_mean_300s.*choose a source that sends q"):
        scorer.check_source({Kind.TRADE})


def twin(**changes: Any) -> Artifact:
    """The included model with changed metadata: another model for the same rows."""
    known = Artifact.load(TEN_MODEL)
    facts = msgspec.structs.replace(known.metadata, **changes)
    return Artifact(known.directory, facts, known._scorer)


def test_a_model_is_replaced_between_two_ticks() -> None:
    """Windows stay warm, points keep their threshold, and readers receive a new snapshot."""
    live, other = pipeline(), twin(thresholds={"low": 0.01}, served_threshold="low", onnx_sha256="cd" * 32)
    ticks = walk(320)
    for tick in ticks[:310]:
        live.take(frame(tick))
    before = Dashboard(live).snapshot(None)
    watching = live.publisher.subscribe()
    live.adopt(other)
    for tick in ticks[310:]:
        live.take(frame(tick))
    after = Dashboard(live).snapshot(None)
    assert after["points"][:310] == before["points"]
    assert {point["threshold"] for point in after["points"][310:]} == {0.01}
    assert all(point["is_warm"] for point in after["points"][310:])
    assert (after["model"]["version"], after["model"]["threshold"]) == ("cd" * 6, 0.01)

    async def events() -> list[tuple[str, bytes]]:
        watching.close()
        return [event async for event in watching]

    assert asyncio.run(events()) == [("snapshot", b"")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"features": ("log_return_77s",)}, "expects feature digest .*; missing: log_return_77s"),
        ({"every": "1s"}, "expects rows every 1s"),
        (
            {"profile": "ticker+trade", "features": ("volume_velocity_60s",), "every": "tick"},
            "needs trade sizes.*; missing: volume_velocity_60s; choose a source that sends trades",
        ),
    ],
)
def test_a_model_of_other_rows_is_not_adopted(changes: dict[str, Any], told: str) -> None:
    """A model that needs other rows than the engine produces is refused, and the previous one stays."""
    live = pipeline()
    before = Dashboard(live).snapshot(None)["model"]
    with pytest.raises(SchemaMismatch, match=told):
        live.adopt(twin(**changes))
    assert Dashboard(live).snapshot(None)["model"] == before


def test_a_model_of_another_horizon_changes_what_a_spike_is() -> None:
    """Outcomes of alerts and the spikes of the past are those of the new horizon, and its explanation begins again."""
    live = pipeline()
    live.products["BTC-USD"].view.explanation.count(0.12, is_spike=True)
    live.adopt(twin(horizon_s=300))
    assert (live.alerts.horizon_s, live.stored.horizon_s) == (300, 300)
    shown = Dashboard(live).snapshot(None)["explanation"]
    assert (shown["horizon_s"], sum(each["minutes"] for each in shown["bins"])) == (300, 0)


def test_a_model_with_an_invalid_threshold_is_not_adopted() -> None:
    """A threshold of 0 would alert on every row."""
    live = pipeline()
    with pytest.raises(UsageError, match="release"):
        live.adopt(twin(thresholds={"always": 0.0}, served_threshold="always"))
    assert live.scorer.artifact.threshold > 0.0


def test_a_tape_that_cannot_be_written_is_a_fault_of_the_pipeline(tmp_path: Path) -> None:
    """It is a background fault with the reason and the loss until the tape is written again."""
    (tmp_path / "file").touch()
    recorder = Recorder(tmp_path / "file" / "tape", simulated=True)
    scorer = LiveScorer(Artifact.load(TEN_MODEL))
    live = LivePipeline(scorer, ["BTC-USD"], "test", mode=Mode.SIMULATED, recorder=recorder)
    (task,) = (task for task in live.tasks if task.name == "tape recording")
    for _ in range(2):
        live.check_tape()
    assert task.faults == 1
    assert "Not a directory" in (task.error or "")
    live.close()
