"""Latency from tick to prediction at a steady rate, compared with two minimal client loops."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from benchmarks.figures import Figure
from benchmarks.kafka_bare import pass_on
from benchmarks.kafka_market import cpu_seconds, tick_at
from volspike.features import Every
from volspike.market import SECOND_NS, Profile, parse_time
from volspike.models import TEN_MODEL, Artifact
from volspike.monitoring.alerts import StreamAlerts
from volspike.streams.clients import KafkaSettings, open_consumer
from volspike.streams.featurizer import featurizer_factory
from volspike.streams.predictor import predictor_factory
from volspike.streams.producer import TopicProducer
from volspike.streams.state import WorkerPlan
from volspike.streams.topics import create_topics, pipeline_topics
from volspike.streams.transactions import KafkaClients
from volspike.streams.worker import Worker

RATE: Final = 1_000
WARM_S: Final = 10
TIMED_S: Final = 20
COMMIT_MS: Final = 20.0
STAGES: Final = ("featurize", "predict")

START_WITHIN_S: Final = 120
END_WITHIN_S: Final = 60


class Told(msgspec.Struct):
    """The fields of a message that the reader needs, for a prediction or a copied tick."""

    timestamp: str


class Way(NamedTuple):
    """Milliseconds from sending to reading, and the shares of a core used by the broker and the two workers."""

    late: NDArray[np.float64]
    broker: float
    workers: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return float(np.percentile(self.late, share))


def work(settings: KafkaSettings, stage: str, stop: Any) -> None:
    """A worker of the pipeline with a model of the package that scores each tick, and its features."""
    artifact = Artifact.load(TEN_MODEL)
    own = WorkerPlan(
        group=stage, name=stage, topic_in=settings.topic_raw, topic_out=settings.topic_features, commit_ms=COMMIT_MS
    )
    make = featurizer_factory(artifact.metadata.feature_set, Profile.TICKER, Every.TICK)
    if stage == "predict":
        make = predictor_factory(artifact, artifact.name, lambda: StreamAlerts(artifact.threshold))
        topics = {"topic_in": settings.topic_features, "topic_out": settings.topic_predictions}
        own = msgspec.structs.replace(own, **topics)
    Worker(KafkaClients(settings), own, make, stop=stop.is_set).run()


def work_bare(settings: KafkaSettings, stage: str, stop: Any) -> None:
    """The minimal client loop instead of a worker."""
    topics = (settings.topic_raw, settings.topic_features)
    if stage == "predict":
        topics = (settings.topic_features, settings.topic_predictions)
    pass_on(settings, stage, stage, topics, most=10_000, commit_ms=COMMIT_MS, stop=stop.is_set)


def way(settings: KafkaSettings, run: Callable[..., None], broker: int) -> Way:
    """Send ticks at ``RATE``; the first ``WARM_S`` seconds do not count."""
    create_topics(settings, pipeline_topics(settings, partitions=2))
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=run, args=(settings, name, stop)) for name in STAGES]
    for worker in workers:
        worker.start()
    found: list[tuple[float, float]] = []
    reader = threading.Thread(target=read, args=(settings, stop, found))
    reader.start()
    pids = [broker, *(worker.pid for worker in workers if worker.pid is not None)]
    try:
        timed_from, before = send(settings, found, pids)
        used = [(cpu_seconds(pid) - cpu) / TIMED_S for pid, cpu in zip(pids, before, strict=True)]
        time.sleep(2)
    finally:
        stop.set()
        reader.join()
        for worker in workers:
            worker.join(END_WITHIN_S)
            worker.kill()
    late = np.array([1e3 * (read - sent) for sent, read in found if sent >= timed_from])
    if len(late) != RATE * TIMED_S:
        raise RuntimeError(f"{len(late):,} of {RATE * TIMED_S:,} came")
    return Way(late, used[0], tuple(used[1:]))


def send(settings: KafkaSettings, found: list[tuple[float, float]], pids: list[int]) -> tuple[float, list[float]]:
    """Send all ticks at their times; return when counting began and the processor time used by then."""
    before: list[float] = []
    timed_from = 0.0
    with TopicProducer(settings, settings.topic_raw) as producer:
        deadline = time.monotonic() + START_WITHIN_S
        while not found:  # workers need time to start
            if time.monotonic() > deadline:
                raise RuntimeError(f"no prediction within {START_WITHIN_S} s: a worker has ended")
            producer.send(tick_at(0, time.time_ns()))
            producer.serve(0.1)
        began = time.time()
        for number in range(RATE * (WARM_S + TIMED_S)):
            ahead = began + number / RATE - time.time()
            if ahead > 0:
                time.sleep(ahead)
            if number == RATE * WARM_S:
                before = [cpu_seconds(pid) for pid in pids]
                timed_from = time.time()
            producer.send(tick_at(number, time.time_ns()))
            producer.serve()
    return timed_from, before


def read(settings: KafkaSettings, stop: Any, found: list[tuple[float, float]]) -> None:
    """Record the tick time and the read time of each prediction."""
    decode = msgspec.json.Decoder(Told).decode
    consumer = open_consumer(settings, group_id="reader")
    partitions = KafkaClients(settings).partitions(settings.topic_predictions)
    consumer.assign([TopicPartition(settings.topic_predictions, number, 0) for number in range(partitions)])
    while not stop.is_set():
        for message in consumer.consume(1, 0.1) + consumer.consume(1_000, 0):
            if message.error() is None:
                sent = parse_time(decode(message.value()).timestamp)
                found.append((sent / SECOND_NS, time.time()))
    consumer.close()


def topics_of(bootstrap: str, name: str) -> KafkaSettings:
    """Create the topics of one pipeline."""
    return KafkaSettings(
        bootstrap_servers=bootstrap,
        topic_raw=f"{name}.raw",
        topic_features=f"{name}.features",
        topic_predictions=f"{name}.predictions",
    )


def figures(bootstrap: str, broker: int) -> list[Figure]:
    """Measure the pipeline, then the minimal loops."""
    ours = way(topics_of(bootstrap, "live"), work, broker)
    plain = way(topics_of(bootstrap, "bare"), work_bare, broker)
    workers = ", ".join(f"{name} {share:.0%}" for name, share in zip(STAGES, ours.workers, strict=True))
    return [
        Figure(
            f"tick sent → prediction read at {RATE:,} ticks/s, commits every {COMMIT_MS:g} ms, median and p99",
            f"{ours.percentile(50):.0f} and {ours.percentile(99):.0f} ms",
            "p99 under 100 ms",
            ours.percentile(99) < 100.0,
            f"two minimal loops with the same commits {plain.percentile(50):.0f} and {plain.percentile(99):.0f} ms; "
            f"of a core: broker {ours.broker:.0%}, {workers}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        )
    ]
