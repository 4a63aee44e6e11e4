"""Brokers that fall and come back while ticks are sent: none is lost, none twice, the order stays."""

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

from tests_system.processes import VOLSPIKE, environment, finished
from volspike.market import SECOND_NS
from volspike.streams.clients import KafkaSettings
from volspike.streams.producer import TickRelay, TopicProducer
from volspike.streams.replay import ReplayProgress, replay, tape_messages
from volspike.streams.topics import create_topics, describe_topics, pipeline_topics
from volspike.tape import TapeReport

TOPIC = "ticks.raw"


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A broker of the test's own."""
    with Kafka() as own:
        create_topics(settings := KafkaSettings(bootstrap_servers=own.bootstrap), pipeline_topics(settings))
        yield own


def test_what_waits_for_a_broker_arrives_in_order(kafka: Kafka) -> None:
    """Ticks taken before, during and after an outage are all in the topic once, and the outage was told."""
    told: list[str] = []
    seconds = iter(range(0, 10_000, 2))
    relay = TickRelay(KafkaSettings(bootstrap_servers=kafka.bootstrap), told.append, clock=lambda: next(seconds))
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
    assert [text for text in told if "no tick is delivered" in text]
    found = by_key(read_topic(KafkaSettings(bootstrap_servers=kafka.bootstrap), TOPIC, 300))["BTC-USD"]
    assert [frame.data in value for frame, value in zip(frames, found, strict=True)] == [True] * 300


def test_a_replay_survives_brokers_that_are_killed(tmp_path: Path) -> None:
    """Of three brokers each is killed and started again during a replay; the topic has the tape line for line."""
    tape = write_tape(tmp_path / "tape.ndjson", [tick_at(k * 10**6, 100.0 + k % 7) for k in range(60_000)])
    with Kafka(3) as kafka:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        create_topics(settings, pipeline_topics(settings))
        producer, done = TopicProducer(settings, TOPIC), Event()

        def keep_replaying() -> None:
            try:
                # a minute of tape at this speed lasts about as long as three kills do
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


def test_an_interrupted_replay_delivers_what_it_took(kafka: Kafka, tmp_path: Path) -> None:
    """Ctrl-C ends a slow replay in order: what it says to have delivered is the beginning of the tape in the topic."""
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
    assert finished(check, tmp_path, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap).status == 0
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip().splitlines()[-1]) == (130, "stopped")
    assert time.monotonic() - began < 10
    delivered = int(out.split()[0].replace(",", ""))
    found = read_topic(KafkaSettings(bootstrap_servers=kafka.bootstrap), TOPIC, delivered)
    assert [message.value() for message in found] == lines_of(tape)[:delivered]
    assert 20 <= delivered < 20_000
