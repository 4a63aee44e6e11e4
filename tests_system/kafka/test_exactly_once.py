"""Exactly-once processing: killed workers and a killed broker do not change the output."""

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
from tests_system.kafka.reading import read_all
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
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    """A broker for this module alone, because the test kills it."""
    with Kafka() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def settings(kafka: Kafka) -> KafkaSettings:
    """The settings of a cluster with the topics of the pipeline."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
    create_topics(settings, pipeline_topics(settings))
    return settings


class Sender(threading.Thread):
    """Sends the market to the first topic, as far as ``share`` allows."""

    def __init__(self, settings: KafkaSettings, market: Market) -> None:
        super().__init__()
        self._settings = settings
        self._messages = market.messages
        self.share = 0.0
        """The share of the market that may be sent by now, from 0 to 1."""
        self.is_done = False

    def run(self) -> None:
        """Sends every message."""
        with TopicProducer(self._settings, self._settings.topic_raw) as producer:
            for number, message in enumerate(self._messages):
                while number >= self.share * len(self._messages):
                    producer.serve(0.02)
                producer.send(message)
        self.is_done = producer.delivered == len(self._messages)


def output_sizes(settings: KafkaSettings) -> list[int]:
    """The numbers of messages in the two output topics; an empty list while the broker is down."""
    try:
        extents = describe_topics(settings, [settings.topic_features, settings.topic_predictions], TIMEOUT_S)
    except StreamError:
        return []
    return [extent.offsets for extent in extents]


def wait_for_output(settings: KafkaSettings, before: list[int]) -> None:
    """Waits until a worker has written output, so that the next kill hits a busy worker; gives up after a timeout."""
    until = time.monotonic() + TIMEOUT_S
    while output_sizes(settings) in ([], before) and time.monotonic() < until:
        time.sleep(0.05)


def disturb(
    workers: Sequence[WorkerProcess], kills: int, kafka: Kafka, settings: KafkaSettings, sender: Sender
) -> Counter[str]:
    """Kills, restarts and freezes random workers, and kills the broker once; returns the number of each action."""
    chance = random.Random(3)  # noqa: S311
    done: Counter[str] = Counter()
    while done["kill"] < kills:
        before = output_sizes(settings)
        sender.share = (done["kill"] + 1) / (kills + 1)
        wait_for_output(settings, before)
        time.sleep(chance.uniform(0.0, 0.8))
        worker = chance.choice(workers)
        action = chance.choices(["kill", "leave", "freeze"], [8, 2, 1])[0]
        if worker.has_ended:
            action = "start"  # it was frozen for too long, or found no broker
        elif action == "kill":
            worker.kill()
        elif action == "leave":
            assert worker.stop() in {0, -signal.SIGTERM}, worker.output  # it may not handle signals yet
        else:
            worker.signal(signal.SIGSTOP)
            time.sleep(3.0)
            worker.signal(signal.SIGCONT)
        if action != "freeze":
            worker.start()
        done[action] += 1
        if done["kill"] == kills // 2 and not done["broker"]:
            kafka.kill()
            kafka.start()
            done["broker"] += 1
    sender.share = 1.0
    return done


@pytest.mark.timeout(900)
def test_stream_under_kills_equals_a_plain_replay(kafka: Kafka, settings: KafkaSettings, tmp_path: Path) -> None:
    """Killed, frozen and restarted workers and a killed broker change no row, prediction or dead letter."""
    market = make_market(TICKS)
    expected = expected_rows(market.ticks, FeatureSet())  # also compiles the kernel, once for all workers
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
        statuses = [worker.stop() for worker in workers]
    finally:
        sender.share = 1.0
        for worker in workers:
            worker.kill()
    assert sender.is_done
    for worker, status in zip(workers, statuses, strict=True):
        # SIGTERM may arrive before a worker handles it, and a worker may have started while the broker was down
        assert status in {0, -signal.SIGTERM} or "BrokerUnavailable" in worker.output.splitlines()[-1], worker.output
    for worker in (featurizers[0], predictors[0]):
        finishing = WorkerProcess(tmp_path, kafka.bootstrap, worker.command, "z", *(
            arguments if worker in featurizers else model), "--finish")  # fmt: skip
        finishing.start()
        try:
            assert finishing.wait() == 0, finishing.output
        finally:
            finishing.kill()
        workers.append(finishing)

    assert disturbed["kill"] == KILLS
    rows = by_key(read_all(settings, settings.topic_features))
    assert {pair: len(values) for pair, values in rows.items()} == {p: len(v) for p, v in expected.items()}
    assert rows == expected
    assert dead_letters(read_all(settings, settings.topic_dead)) == sorted(market.damaged)
    assert_file_equals_replay(file, market, tmp_path)
    assert_predictions(settings, market, workers, disturbed)


def dead_letters(found: Sequence[Received]) -> list[bytes]:
    """The sorted values of the dead letters, after asserting that each states a different origin."""
    origins = [tuple(dict(message.headers())[f"volspike.{name}"] for name in ("topic", "partition", "offset"))
              for message in found]  # fmt: skip
    assert len(set(origins)) == len(origins)
    return sorted(message.value() or b"" for message in found)


def assert_file_equals_replay(file: Path, market: Market, folder: Path) -> None:
    """Asserts that the merged file has the rows of a plain replay."""
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
    """Asserts one prediction per row, and at least one message per alert; a duplicate needs a fault."""
    expected, alerts = expected_predictions(market.ticks, VERSION)
    found = by_key(read_all(settings, settings.topic_predictions))
    assert {pair: len(values) for pair, values in found.items()} == {p: len(v) for p, v in expected.items()}
    assert found == expected
    sent = Counter(alert for worker in workers for alert in worker.alerts())
    assert alerts
    assert set(sent) == alerts
    # one fault may repeat all alerts of a transaction, each of them once
    assert max(sent.values()) - 1 <= disturbed["kill"] + disturbed["freeze"] + disturbed["broker"]
