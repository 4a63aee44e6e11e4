"""Whatever is killed, the output is that of a plain replay: each row once, to the bit."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message as Received
from tests.streams.brokers import Kafka
from tests.streams.contract import by_key

from tests_system.kafka.market import Market, expected_predictions, expected_rows, make_market
from tests_system.kafka.reading import read_whole
from tests_system.kafka.workers import WorkerProcess
from volspike.datasets.dataset import compare
from volspike.datasets.feature_file import FeatureFileWriter
from volspike.errors import StreamError
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import Profile, Ticks
from volspike.models import TEN_MODEL
from volspike.streams.clients import KafkaSettings
from volspike.streams.producer import TopicProducer
from volspike.streams.sink import facts_for
from volspike.streams.topics import create_topics, describe_topics, pipeline_topics

KILLS = int(os.environ.get("VOLSPIKE_KILLS", "30"))
TICKS = max(40_000, 200_000 * KILLS // 30)
VERSION = "logistic (ml)"
SNAPSHOT_ROWS = 3_000
AWAITED_S = 20.0


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    """A broker of our own, for it is killed, too."""
    with Kafka() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def settings(kafka: Kafka) -> KafkaSettings:
    """The pipeline's topics on it."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
    create_topics(settings, pipeline_topics(settings))
    return settings


class Sender(threading.Thread):
    """Sends the market, slice by slice as it is let."""

    def __init__(self, settings: KafkaSettings, market: Market) -> None:
        super().__init__()
        self._settings = settings
        self._messages = market.messages
        self.share = 0.0
        """How much of the market may be sent by now; 1 is all of it."""
        self.has_ended = False

    def run(self) -> None:
        """Sends until all is sent."""
        with TopicProducer(self._settings, self._settings.topic_raw) as producer:
            for number, message in enumerate(self._messages):
                while number >= self.share * len(self._messages):
                    producer.serve(0.02)
                producer.send(message)
        self.has_ended = producer.delivered == len(self._messages)


def reach(settings: KafkaSettings) -> list[int]:
    """How far the two outputs are; nothing while the broker comes back."""
    try:
        extents = describe_topics(settings, [settings.topic_features, settings.topic_predictions], AWAITED_S)
    except StreamError:
        return []
    return [extent.offsets for extent in extents]


def wait_for_work(settings: KafkaSettings, since: list[int]) -> None:
    """Returns once somebody has written something, so that what is killed next was at work; gives up after a while."""
    until = time.monotonic() + AWAITED_S
    while reach(settings) in ([], since) and time.monotonic() < until:
        time.sleep(0.05)


def disturb(
    workers: Sequence[WorkerProcess], kills: int, kafka: Kafka, settings: KafkaSettings, sender: Sender
) -> Counter[str]:
    """Kills workers at random; in between some stand still, some leave and come back, and once the broker dies."""
    chance = random.Random(3)  # noqa: S311
    done: Counter[str] = Counter()
    while done["kill"] < kills:
        since = reach(settings)
        sender.share = (done["kill"] + 1) / (kills + 1)
        wait_for_work(settings, since)
        time.sleep(chance.uniform(0.0, 0.8))
        worker = chance.choice(workers)
        what = chance.choices(["kill", "leave", "freeze"], [8, 2, 1])[0]
        if worker.has_ended:
            what = "start"  # it stood still for too long, or found no broker
        elif what == "kill":
            worker.kill()
        elif what == "leave":
            assert worker.end() in {0, -signal.SIGTERM}, worker.said  # it may not listen to signals yet
        else:
            worker.signal(signal.SIGSTOP)
            time.sleep(3.0)
            worker.signal(signal.SIGCONT)
        if what != "freeze":
            worker.start()
        done[what] += 1
        if done["kill"] == kills // 2 and not done["broker"]:
            kafka.kill()
            kafka.start()
            done["broker"] += 1
    sender.share = 1.0
    return done


@pytest.mark.timeout(900)
def test_a_plain_replay_and_a_stream_under_kills_are_equal(
    kafka: Kafka, settings: KafkaSettings, tmp_path: Path
) -> None:
    """Killed, frozen, leaving and joining workers and a dead broker change no row, no prediction and no dead letter."""
    market = make_market(TICKS)
    expected = expected_rows(market.ticks, FeatureSet())  # which also compiles the kernel, once for all workers
    file = tmp_path / "features.parquet"
    model = ("--model", TEN_MODEL)
    arguments = ("--output-file", file, "--snapshot-rows", SNAPSHOT_ROWS, *model)
    featurizers = [WorkerProcess(tmp_path, kafka.bootstrap, "featurize", name, *arguments) for name in "ab"]
    predictors = [WorkerProcess(tmp_path, kafka.bootstrap, "predict-stream", name, *model) for name in "cd"]
    workers = [*featurizers, *predictors]
    sender = Sender(settings, market)
    sender.start()
    try:
        for worker in workers:
            worker.start()
        disturbed = disturb(workers, KILLS, kafka, settings, sender)
        sender.join()
        statuses = [worker.end() for worker in workers]
    finally:
        sender.share = 1.0
        for worker in workers:
            worker.kill()
    assert sender.has_ended
    for worker, status in zip(workers, statuses, strict=True):
        # SIGTERM may come before a worker listens to it, and a worker may have started while the broker was down
        assert status in {0, -signal.SIGTERM} or "BrokerUnavailable" in worker.said.splitlines()[-1], worker.said
    for worker in (featurizers[0], predictors[0]):
        finishing = WorkerProcess(tmp_path, kafka.bootstrap, worker.command, "z", *(
            arguments if worker in featurizers else model), "--finish")  # fmt: skip
        finishing.start()
        try:
            assert finishing.wait() == 0, finishing.said
        finally:
            finishing.kill()
        workers.append(finishing)

    assert disturbed["kill"] == KILLS
    rows = by_key(read_whole(settings, settings.topic_features))
    assert {pair: len(values) for pair, values in rows.items()} == {p: len(v) for p, v in expected.items()}
    assert rows == expected
    assert dead_letters(read_whole(settings, settings.topic_dead)) == sorted(market.damaged)
    assert_file_is_of(file, market, tmp_path)
    assert_predictions(settings, market, workers, disturbed)


def dead_letters(found: Sequence[Received]) -> list[bytes]:
    """The values of the dead letters, each of which says where it came from."""
    places = [tuple(dict(message.headers())[f"volspike.{name}"] for name in ("topic", "partition", "offset"))
              for message in found]  # fmt: skip
    assert len(set(places)) == len(places)
    return sorted(message.value() or b"" for message in found)


def assert_file_is_of(file: Path, market: Market, folder: Path) -> None:
    """The merged file is that of a plain replay."""
    plain = folder / "plain.parquet"
    engine = FeatureEngine(FeatureSet(), Profile.TICKER, Every.TICK)
    with FeatureFileWriter(plain, engine.feature_set) as writer:
        writer.facts = facts_for(engine.feature_set, engine.every, engine.profile)
        for part in engine.run(Ticks.of(market.ticks)):
            writer.write(part)
    found = compare(file, plain)
    assert found.is_equal, found
    assert found.common == TICKS


def assert_predictions(
    settings: KafkaSettings, market: Market, workers: Sequence[WorkerProcess], disturbed: Counter[str]
) -> None:
    """Every row is predicted once, and every alert told: at least once, and rarely more often."""
    expected, alerts = expected_predictions(market.ticks, VERSION)
    found = by_key(read_whole(settings, settings.topic_predictions))
    assert {pair: len(values) for pair, values in found.items()} == {p: len(v) for p, v in expected.items()}
    assert found == expected
    told = Counter(alert for worker in workers for alert in worker.alerts())
    assert alerts
    assert set(told) == alerts
    assert sum(told.values()) - len(told) <= disturbed["kill"] + disturbed["freeze"] + disturbed["broker"]
