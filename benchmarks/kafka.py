"""The pipeline on a real broker on loopback, compared with minimal loops of the client's own calls.

Broker and clients share the machine's cores. Rounds of both alternate, and the best of each counts. This module
measures ticks into Kafka; ``kafka_rate`` measures featurizers, ``kafka_latency`` the time to a prediction.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import Producer
from tests.streams.brokers import Kafka

from benchmarks import kafka_latency, kafka_rate
from benchmarks.figures import Figure
from benchmarks.kafka_market import cpu_seconds
from benchmarks.kafka_rate import Rate, best
from benchmarks.tape import write_lines
from volspike.streams.clients import KafkaSettings, open_producer
from volspike.streams.producer import LINGER_MS, QUEUED_KBYTES, QUEUED_MESSAGES, TopicProducer
from volspike.streams.replay import ReplayProgress, replay, tape_messages
from volspike.streams.topics import create_topics, pipeline_topics
from volspike.tape import TapeReport

ROUNDS: Final = 3
DELIVER_WITHIN_S: Final = 60.0


def replayed(settings: KafkaSettings, tape: Path) -> Rate:
    """`replay-to-kafka --speed 0`, from the first byte read to the last message acknowledged."""
    began, cpu = time.perf_counter(), cpu_seconds()
    producer = TopicProducer(settings, settings.topic_raw)
    replay(tape_messages(tape, TapeReport()), producer, 0.0, ReplayProgress())
    left = producer.flush(DELIVER_WITHIN_S)
    took, used = time.perf_counter() - began, cpu_seconds() - cpu
    if left or producer.failed:
        raise RuntimeError(f"{left + producer.failed} messages were not delivered")
    return Rate(producer.delivered / took, producer.delivered / used)


def bare(settings: KafkaSettings, lines: Sequence[bytes]) -> Rate:
    """The same messages from memory with one key and no timestamps: the client only."""
    began, cpu = time.perf_counter(), cpu_seconds()
    producer: Producer = open_producer(
        settings,
        linger_ms=LINGER_MS,
        queue_buffering_max_messages=QUEUED_MESSAGES,
        queue_buffering_max_kbytes=QUEUED_KBYTES,
    )
    for line in lines:
        while True:
            try:
                producer.produce(settings.topic_raw, line, b"BTC-USD")
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return Rate(len(lines) / (time.perf_counter() - began), len(lines) / (cpu_seconds() - cpu))


def figures(settings: KafkaSettings) -> list[Figure]:
    """Send a tape in recorded format to a topic with three partitions."""
    create_topics(settings, pipeline_topics(settings))
    with tempfile.TemporaryDirectory() as folder:
        tape = Path(folder) / "tape.ndjson"
        write_lines(tape)
        lines = tape.read_bytes().splitlines()
        rounds = [(replayed(settings, tape), bare(settings, lines)) for _ in range(ROUNDS)]
    ours, plain = (best(rates) for rates in zip(*rounds, strict=True))
    return [
        Figure(
            f"`replay-to-kafka --speed 0`, {len(lines):,} lines into a real broker, acks=all, idempotent",
            f"{ours.wall:,.0f} messages/s; {ours.cpu:,.0f} per second of processor time",
            "60 000 messages/s",
            ours.wall >= 60_000,
            f"minimal producer loop {plain.wall:,.0f}/s; {plain.cpu:,.0f}, with the same lines from memory",
        )
    ]


def main() -> list[Figure]:
    """All Kafka benchmarks on one broker."""
    with Kafka(heap="512m", optimize=True) as kafka:
        latency = kafka_latency.figures(kafka.bootstrap, kafka.pid())
        into = figures(KafkaSettings(bootstrap_servers=kafka.bootstrap))
        rates = kafka_rate.figures(kafka_latency.topics_of(kafka.bootstrap, "rate"))
    return [*into, *rates, *latency]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
