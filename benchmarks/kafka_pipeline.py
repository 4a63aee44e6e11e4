"""Exactly once on a real broker on loopback: how fast, how late, and how it grows with workers.

Workers are processes of their own; the broker and they share the machine's cores, and on two cores two workers and a
broker cannot all run. So beside the messages a second of the clock stand those of a second of the worker's own CPU
time, all of its client's threads included. A rate counts from the first partition assigned to the last commit.
"""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
from confluent_kafka import TopicPartition
from tests.streams.brokers import Kafka

from benchmarks.figures import Figure
from benchmarks.tape import DAY, RAW
from volspike.features import Every, FeatureSet
from volspike.market import SECOND_NS, Kind, Profile, Tick, nanoseconds
from volspike.models import TEN_MODEL, Artifact
from volspike.monitoring.stream_alerts import StreamAlerts
from volspike.streams.clients import open_consumer
from volspike.streams.featurizer import featurizing
from volspike.streams.links import KafkaLinks
from volspike.streams.plan import WorkerPlan
from volspike.streams.predictor import predicting
from volspike.streams.producer import TopicProducer
from volspike.streams.settings import KafkaSettings
from volspike.streams.stage import MakeStage
from volspike.streams.topics import create_topics, pipeline_topics
from volspike.streams.wire import Message, decode_prediction, tick_message
from volspike.streams.worker import Worker
from volspike.tape import tape_line

TICKS: Final = 300_000
ROUNDS: Final = 2
RATE: Final = 1_000
WARM_S: Final = 10
TIMED_S: Final = 20
COMMIT_MS: Final = 20.0
PAIRS: Final = ("BTC-USD", "ETH-USD")
START: Final = 1_764_999_936 * SECOND_NS
END_WITHIN_S: Final = 60

_names = count()


class Rate(NamedTuple):
    """Messages a second of the clock, and of the process's CPU."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Timer:
    """From the first stage made on."""

    began: float = 0.0
    cpu: float = 0.0

    def started(self, make: MakeStage) -> MakeStage:
        """The same stages; the first one starts the time."""

        def made(partition: int) -> Any:
            self.start()
            return make(partition)

        return made

    def start(self) -> None:
        """Starts the time, once."""
        if not self.began:
            self.began, self.cpu = time.perf_counter(), _cpu()

    def rate(self, messages: int) -> Rate:
        """How fast so many were since."""
        return Rate(messages / (time.perf_counter() - self.began), messages / (_cpu() - self.cpu))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def tick_at(number: int, received: int) -> Message:
    """A tick of recorded shape, of each pair in turn."""
    pair, price = PAIRS[number % len(PAIRS)], 89_565.0 + (number * 7_919 % 401 - 200) / 100
    tick = Tick(time=received, received=received, kind=Kind.TICKER, product_id=pair, price=price,
                best_bid=price - 0.01, best_ask=price + 0.01, bid_size=0.25, ask_size=0.5)  # fmt: skip
    raw = RAW.format(price=price, bid=price - 0.01, ask=price + 0.01, bid_size=0.25, ask_size=0.5)
    line = tape_line(tick, raw=raw.replace("BTC-USD", pair).encode(), day=DAY)
    return tick_message(pair, line, received)


def plan(settings: KafkaSettings, group: str, **more: Any) -> WorkerPlan:
    """A featurizer's plan."""
    told = {"group": group, "name": str(next(_names)), "topic_in": settings.topic_raw}
    return WorkerPlan(**{**told, "topic_out": settings.topic_features, "commit_ms": COMMIT_MS, **more})


def featurized(settings: KafkaSettings, group: str, name: str) -> Rate:
    """A featurizer until everything in its partitions is taken."""
    timer = Timer()
    make = timer.started(featurizing(FeatureSet(), Profile.TICKER, Every.TICK))
    progress = Worker(KafkaLinks(settings), plan(settings, group, name=name, finish=True), make).run()
    return timer.rate(progress.messages)


def bare(settings: KafkaSettings, group: str, name: str) -> Rate:
    """The same client with the same transactions, and nothing done to what it reads."""
    links = KafkaLinks(settings)
    timer, taken, has_ended = Timer(), 0, False
    producer = links.producer(f"{group}-{name}")
    producer.init_transactions()
    consumer = links.consumer(group, tells_end=True)

    def assigned(_: Any, places: list[TopicPartition]) -> None:
        timer.start()
        consumer.incremental_assign([TopicPartition(place.topic, place.partition, 0) for place in places])

    consumer.subscribe([settings.topic_raw], on_assign=assigned)
    headers = [("a", b"3644e382a19d"), ("b", b"tick"), ("c", b"ticker"), ("d", b"false")]
    while not has_ended:
        messages = consumer.consume(5_000, 0.1)
        has_ended = any(message.error() is not None for message in messages)
        messages = [message for message in messages if message.error() is None]
        if messages:
            producer.begin_transaction()
            for message in messages:
                producer.produce(settings.topic_features, message.value(), message.key(), headers=headers)
            last = {message.partition(): message.offset() + 1 for message in messages}
            offsets = [TopicPartition(settings.topic_raw, number, offset) for number, offset in last.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            taken += len(messages)
    rate = timer.rate(taken)
    consumer.close()
    return rate


def stream(settings: KafkaSettings, stage: str, stop: Any) -> None:
    """A worker of the pipeline until it is told to stop."""
    if stage == "featurize":
        make, own = featurizing(FeatureSet(), Profile.TICKER, Every.TICK), plan(settings, stage, name=stage)
    else:
        artifact = Artifact.load(TEN_MODEL)
        make = predicting(artifact, artifact.name, lambda: StreamAlerts(artifact.threshold))
        topics = {"topic_in": settings.topic_features, "topic_out": settings.topic_predictions}
        own = plan(settings, stage, name=stage, **topics)
    Worker(KafkaLinks(settings), own, make, stop=stop.is_set).run()


def latencies(settings: KafkaSettings) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds from a tick's time, when it was sent, to its prediction read by somebody, at 1000 ticks/s."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=stream, args=(settings, name, stop)) for name in ("featurize", "predict")]
    for worker in workers:
        worker.start()
    found: list[tuple[float, float]] = []
    reader = threading.Thread(target=read_predictions, args=(settings, stop, found))
    reader.start()
    with TopicProducer(settings, settings.topic_raw) as producer:
        while not found:  # the workers take their time to start
            producer.send(tick_at(0, time.time_ns()))
            producer.serve(0.1)
        began = time.time()
        for number in range(RATE * (WARM_S + TIMED_S)):
            ahead = began + number / RATE - time.time()
            if ahead > 0:
                time.sleep(ahead)
            producer.send(tick_at(number, time.time_ns()))
            producer.serve()
    time.sleep(2)
    stop.set()
    reader.join()
    for worker in workers:
        worker.join(END_WITHIN_S)
        if worker.exitcode != 0:
            worker.kill()
            raise RuntimeError(f"a worker ended with {worker.exitcode}")
    late = np.array([1e3 * (seen - told) for told, seen in found if told > began + WARM_S])
    if len(late) < RATE * TIMED_S * 0.99:
        raise RuntimeError(f"{len(late):,} of {RATE * TIMED_S:,} predictions came")
    return late


def read_predictions(settings: KafkaSettings, stop: Any, found: list[tuple[float, float]]) -> None:
    """Notes when each prediction's tick was and when it was read."""
    consumer = open_consumer(settings, group_id="reader")
    partitions = KafkaLinks(settings).partitions(settings.topic_predictions)
    consumer.assign([TopicPartition(settings.topic_predictions, number, 0) for number in range(partitions)])
    while not stop.is_set():
        for message in consumer.consume(1, 0.1) + consumer.consume(1_000, 0):
            if message.error() is None:
                told = nanoseconds(decode_prediction(message.value()).timestamp)
                found.append((told / SECOND_NS, time.time()))
    consumer.close()


def together(run: Callable[[KafkaSettings, str, str], Rate], settings: KafkaSettings, workers: int) -> list[Rate]:
    """So many workers of a fresh group, each a process."""
    group = f"bench-{next(_names)}"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(run, [settings] * workers, [group] * workers, map(str, range(workers))))


def main() -> list[Figure]:
    """Ticks of two products in a topic of two partitions."""
    with Kafka(heap="512m") as kafka:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        create_topics(settings, pipeline_topics(settings, partitions=2))
        live = KafkaSettings(bootstrap_servers=kafka.bootstrap, topic_raw="live.raw", topic_features="live.features")
        create_topics(live, pipeline_topics(live, partitions=2))
        late = latencies(live)
        with TopicProducer(settings, settings.topic_raw) as producer:
            for number in range(TICKS):
                producer.send(tick_at(number, START + number * 1_000_000))
        rounds = [(*together(featurized, settings, 1), *together(bare, settings, 1)) for _ in range(ROUNDS)]
        both = [together(featurized, settings, 2) for _ in range(ROUNDS)]
    ours, plain = (Rate(*map(max, zip(*rates, strict=True))) for rates in zip(*rounds, strict=True))
    twice = max(sum(rate.wall for rate in rates) for rates in both)
    p50, p99 = np.percentile(late, [50, 99])
    return [
        Figure(
            f"`featurize`, {TICKS:,} ticks, exactly once, one worker",
            f"{ours.wall:,.0f} ticks/s ({ours.cpu:,.0f} a CPU second)",
            "25 000 ticks/s",
            ours.wall >= 25_000,
            f"a bare loop of the client with the same transactions {plain.wall:,.0f}/s ({plain.cpu:,.0f})",
        ),
        Figure(
            f"tick sent → prediction read at {RATE:,} ticks/s, commits every {COMMIT_MS:g} ms, median and p99",
            f"{p50:.0f} and {p99:.0f} ms",
            "p99 under 100 ms",
            bool(p99 < 100.0),
            "two commits lie between, the row's and the prediction's",
        ),
        Figure(
            "two workers on two partitions, over one",
            f"{twice / ours.wall:.2f} times",
            "1.6 times, where cores allow",
            twice / ours.wall >= 1.6,
            f"{multiprocessing.cpu_count()} cores, shared with the broker",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
