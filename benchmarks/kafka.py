"""Ticks into Kafka: a real broker on loopback, beside the client's own producer in the plainest loop there is.

Broker and client share the machine's cores. Rounds of the two alternate, and of each the best counts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import Producer
from tests.streams.brokers import Kafka

from benchmarks.figures import Figure
from benchmarks.tape import write_lines
from volspike.streams.clients import open_producer
from volspike.streams.producer import LINGER_MS, QUEUED_KBYTES, QUEUED_MESSAGES, TopicProducer
from volspike.streams.replay import ReplayProgress, replay
from volspike.streams.settings import KafkaSettings
from volspike.streams.tapes import tape_messages
from volspike.streams.topics import create_topics, pipeline_topics
from volspike.tape import TapeReport

ROUNDS: Final = 3
DELIVER_WITHIN_S: Final = 60.0


def replayed(settings: KafkaSettings, tape: Path) -> float:
    """Messages a second of ``replay-to-kafka --speed 0``, from the first byte read to the last one acknowledged."""
    began = time.perf_counter()
    producer = TopicProducer(settings, settings.topic_raw)
    replay(tape_messages(tape, TapeReport()), producer, 0.0, ReplayProgress())
    left = producer.flush(DELIVER_WITHIN_S)
    took = time.perf_counter() - began
    if left or producer.failed:
        raise RuntimeError(f"{left + producer.failed} messages were not delivered")
    return producer.delivered / took


def bare(settings: KafkaSettings, lines: Sequence[bytes]) -> float:
    """The same messages from memory, with one key, no timestamps: nothing but the client."""
    began = time.perf_counter()
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
    return len(lines) / (time.perf_counter() - began)


def main() -> list[Figure]:
    """A tape of recorded shape into a topic of three partitions."""
    with tempfile.TemporaryDirectory() as folder, Kafka(heap="512m") as kafka:
        tape = Path(folder) / "tape.ndjson"
        write_lines(tape)
        lines = tape.read_bytes().splitlines()
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        create_topics(settings, pipeline_topics(settings))
        rounds = [(replayed(settings, tape), bare(settings, lines)) for _ in range(ROUNDS)]
    ours, plain = (max(rates) for rates in zip(*rounds, strict=True))
    return [
        Figure(
            f"`replay-to-kafka --speed 0`, {len(lines):,} lines into a real broker, acks=all, idempotent",
            f"{ours:,.0f} messages/s",
            "60 000 messages/s",
            ours >= 60_000,
            f"a bare producer loop {plain:,.0f} messages/s, of the same lines from memory",
        )
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
