"""Broker outages during sending: no tick is lost or duplicated, and the order is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from tests.streams.brokers import Kafka
from tests.streams.contract import by_key, read_topic
from tests.streams.lines import lines_of, write_tape
from tests.tape.recording import NOON, ticker
from tests.tape.strategies import tick_at

from tests_system.processes import VOLSPIKE, environment, run_process
from volspike.market import SECOND_NS
from volspike.streams.clients import KafkaSettings
from volspike.streams.producer import TickRelay, TopicProducer
from volspike.streams.replay import ReplayProgress, replay, tape_messages
from volspike.streams.topics import create_topics, describe_topics, pipeline_topics
from volspike.tape import TapeReport

TOPIC = "ticks.raw"


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A broker for one test, with the topics of the pipeline."""
    with Kafka() as own:
        create_topics(settings := KafkaSettings(bootstrap_servers=own.bootstrap), pipeline_topics(settings))
        yield own


def test_ticks_of_an_outage_arrive_in_order(kafka: Kafka) -> None:
    """Ticks sent before, during and after an outage are in the topic once, in order, and the outage is reported."""
    messages: list[str] = []
    seconds = iter(range(0, 10_000, 2))
    relay = TickRelay(KafkaSettings(bootstrap_servers=kafka.bootstrap), messages.append, clock=lambda: next(seconds))
    frames = [ticker(NOON + k * SECOND_NS, 100.0 + k) for k in range(300)]
    for frame in frames[:100]:
        relay.frame(*frame)
    kafka.kill()
    for frame in frames[100:200]:
        relay.frame(*frame)
    for _ in range(4):
        relay.tick()
    kafka.start()
    for frame in frames[200:]:
        relay.frame(*frame)
    relay.close(60.0)
    assert (relay.delivered, relay.undelivered) == (300, 0)
    assert [text for text in messages if "no deliveries to" in text]
    found = by_key(read_topic(KafkaSettings(bootstrap_servers=kafka.bootstrap), TOPIC, 300))["BTC-USD"]
    assert [frame.data in value for frame, value in zip(frames, found, strict=True)] == [True] * 300


def test_a_replay_survives_brokers_that_are_killed(tmp_path: Path) -> None:
    """Each of three brokers is killed and restarted during a replay; the topic has every line of the tape in order."""
    tape = write_tape(tmp_path / "tape.ndjson", [tick_at(k * 10**6, 100.0 + k % 7) for k in range(60_000)])
    with Kafka(3) as kafka:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        create_topics(settings, pipeline_topics(settings))
        producer, done = TopicProducer(settings, TOPIC), Event()

        def keep_replaying() -> None:
            try:
                # at this speed a minute of tape takes about as long as three kills
                replay(tape_messages(tape, TapeReport()), producer, 2.0, ReplayProgress())
                producer.flush(60.0)
            finally:
                done.set()

        replaying = Thread(target=keep_replaying)
        replaying.start()
        for node in kafka.nodes:
            kafka.kill(node)
            kafka.start(node)
        assert done.wait(120)
        replaying.join()
        assert (producer.delivered, producer.failed) == (60_000, 0)
        assert [topic.offsets for topic in describe_topics(settings, [TOPIC])] == [60_000]
        assert by_key(read_topic(settings, TOPIC, 60_000)) == {"BTC-USD": lines_of(tape)}


def test_interrupted_replay_reports_what_it_delivered(kafka: Kafka, tmp_path: Path) -> None:
    """Ctrl-C stops a slow replay cleanly; the topic has the reported number of lines from the start of the tape."""
    tape = write_tape(tmp_path / "tape.ndjson", [tick_at(k * SECOND_NS // 50) for k in range(20_000)])
    command = [*VOLSPIKE, "replay-to-kafka", "--input", str(tape)]
    process = subprocess.Popen(  # noqa: S603  our own command
        command,
        env=environment(KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    check = [*VOLSPIKE, "consume-check", "--min", "20", "--timeout", "30"]
    assert run_process(check, tmp_path, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap).status == 0
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip().splitlines()[-1]) == (130, "stopped")
    assert time.monotonic() - began < 10
    delivered = int(out.split()[0].replace(",", ""))
    found = read_topic(KafkaSettings(bootstrap_servers=kafka.bootstrap), TOPIC, delivered)
    assert [message.value() for message in found] == lines_of(tape)[:delivered]
    assert 20 <= delivered < 20_000
