"""Rate of exactly-once featurizers: one compared with the minimal client loop, and two compared with one.

A rate covers the time from the moment at which every worker is working to the moment at which the first has no more
messages, so that process starts and rebalances do not count. Rates are given per second of elapsed time and of
processor time; the latter is the capacity of a worker on a machine whose cores are shared.

Two workers and a broker need three cores. With two cores, workers that are each limited to a share of a core show
whether the work scales: a process is paused while it has used more than its share.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.figures import Figure
from benchmarks.kafka_bare import pass_on
from benchmarks.kafka_market import cpu_seconds, fill
from volspike.features import Every, FeatureSet, Scope
from volspike.market import Profile
from volspike.streams.clients import KafkaSettings
from volspike.streams.featurizer import Featurizer
from volspike.streams.state import ReceivedMessage, StageOutput, WorkerPlan
from volspike.streams.topics import create_topics, pipeline_topics
from volspike.streams.transactions import KafkaClients
from volspike.streams.worker import Worker

TICKS: Final = 400_000
ROUNDS: Final = 2
LONGEST_S: Final = 8.0
SHARE: Final = 0.25
TURN_S: Final = 0.01
HELD_ROWS: Final = 1_000
"""Ticks per transaction of a limited worker, so that a run has many transactions."""

END_WITHIN_S: Final = 60

MOST: Final = WorkerPlan(group="", name="", topic_in="", topic_out="").commit_rows

_names = count()


class Sample(NamedTuple):
    """A worker at one moment: elapsed time, processor time, and committed messages."""

    wall: float
    cpu: float
    messages: int


class Rate(NamedTuple):
    """Messages per second of elapsed time, all workers together, and per second of processor time."""

    wall: float
    cpu: float


class Sampler:
    """Sample a worker in its own process and report its end."""

    def __init__(self, at_work: Any, workers: int) -> None:
        self.samples: list[Sample] = []
        self._at_work = at_work
        self._workers = workers
        self._all_since: float | None = None
        self._messages = 0

    def add(self, messages: int) -> None:
        """Record that a batch of this size begins and all before it are committed."""
        if not self.samples:
            with self._at_work.get_lock():
                self._at_work.value += 1
        self.samples.append(Sample(time.time(), cpu_seconds(), self._messages))
        self._messages += messages

    def is_over(self) -> bool:
        """Whether all workers have worked for long enough."""
        if self._all_since is None and self._at_work.value == self._workers:
            self._all_since = time.monotonic()
        return self._all_since is not None and time.monotonic() - self._all_since > LONGEST_S


class Sampled(Featurizer):
    """A featurizer whose batches are sampled."""

    sampler: Sampler

    def process(self, messages: Sequence[ReceivedMessage]) -> StageOutput:
        """Compute the rows of the next ticks."""
        self.sampler.add(len(messages))
        return super().process(messages)


def featurize(
    scope: Scope, settings: KafkaSettings, group: str, name: str, sampler: Sampler, commit_rows: int = MOST
) -> None:
    """Run a featurizer until its partitions are empty or time is up."""

    def make(_: int) -> Sampled:
        stage = Sampled(FeatureSet(scope=scope), Profile.TICKER, Every.TICK)
        stage.sampler = sampler
        return stage

    own = WorkerPlan(
        group=group,
        name=name,
        topic_in=settings.topic_raw,
        topic_out=settings.topic_features,
        commit_rows=commit_rows,
        finish=True,
    )
    Worker(KafkaClients(settings), own, make, stop=sampler.is_over).run()


def bare(settings: KafkaSettings, group: str, name: str, sampler: Sampler) -> None:
    """Run the minimal client loop."""
    topics = (settings.topic_raw, settings.topic_features)
    pass_on(settings, group, name, topics, most=MOST, finish=True, stop=sampler.is_over, on_batch=sampler.add)


def run_sampled(
    run: Callable[..., None], settings: KafkaSettings, group: str, name: str, watch: Any, results: Any
) -> None:
    """Process of one worker: work, and send samples."""
    sampler = Sampler(*watch)
    run(settings, group, name, sampler)
    results.put(sampler.samples)


def together(run: Callable[..., None], settings: KafkaSettings, workers: int, share: float = 1.0) -> Rate:
    """Run workers of a new group as processes, each limited to ``share`` of a core once all are working."""
    context = multiprocessing.get_context("spawn")
    at_work, results, group = context.Value("i", 0), context.Queue(), f"bench-{next(_names)}"
    processes = [
        context.Process(target=run_sampled, args=(run, settings, group, str(number), (at_work, workers), results))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        if share < 1.0:
            hold(processes, at_work, share)
        found = [results.get(timeout=END_WITHIN_S) for _ in processes]
        for process in processes:
            process.join(END_WITHIN_S)
    finally:
        for process in processes:
            process.kill()
    return rate_of(found)


def hold(processes: Sequence[Any], at_work: Any, share: float) -> None:
    """Pause each process while it has used more than its share of processor time."""
    while at_work.value < len(processes):
        time.sleep(TURN_S)
        if not all(process.is_alive() for process in processes):
            return None  # one has failed and reports why
    began = time.monotonic()
    before = [cpu_seconds(process.pid) for process in processes]
    while (took := time.monotonic() - began) < 2 * LONGEST_S:
        for process, cpu in zip(processes, before, strict=True):
            if not process.is_alive():  # also reaps the process
                return release(processes)
            has_had_its_share = cpu_seconds(process.pid) - cpu > share * took
            os.kill(process.pid, signal.SIGSTOP if has_had_its_share else signal.SIGCONT)
        time.sleep(TURN_S)
    return release(processes)


def release(processes: Sequence[Any]) -> None:
    """Resume all running processes."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGCONT)


def rate_of(workers: Sequence[Sequence[Sample]]) -> Rate:
    """Rate while all workers were working, without the first tenth of that time."""
    columns = [np.array(samples) for samples in workers]
    if not all(len(samples) > 1 for samples in workers):
        raise RuntimeError("a worker received no messages")
    start, end = max(samples[0, 0] for samples in columns), min(samples[-1, 0] for samples in columns)
    start += 0.1 * (end - start)
    if start >= end:
        raise RuntimeError("the workers never worked at the same time")
    cpu, messages = (
        sum(float(np.diff(np.interp([start, end], samples[:, 0], samples[:, column]))[0]) for samples in columns)
        for column in (1, 2)
    )
    return Rate(float(messages / (end - start)), messages / cpu)


def best(rates: Sequence[Rate]) -> Rate:
    """The best rates of several runs."""
    return Rate(*map(max, zip(*rates, strict=True)))


def figures(settings: KafkaSettings) -> list[Figure]:
    """Measure with ticks of two products in a topic of two partitions."""
    create_topics(settings, pipeline_topics(settings, partitions=2))
    fill(settings, TICKS)
    scopes = (Scope.FULL, Scope.CORE)
    runs: list[Callable[..., None]] = [bare, *(partial(featurize, scope) for scope in scopes)]
    rounds = [[together(run, settings, 1) for run in runs] for _ in range(ROUNDS)]
    plain, *ours = (best(rates) for rates in zip(*rounds, strict=True))
    figures = [
        Figure(
            f"`featurize`, {len(FeatureSet(scope=scope).names)} features ({scope}), exactly once, one worker",
            f"{rate.wall:,.0f} ticks/s; {rate.cpu:,.0f} per second of processor time",
            "25 000 ticks/s on one core",
            min(rate) >= 25_000,
            f"minimal client loop with the same transactions {plain.wall:,.0f}/s; {plain.cpu:,.0f}",
        )
        for scope, rate in zip(scopes, ours, strict=True)
    ]
    work = partial(featurize, Scope.FULL)
    twice = best([together(work, settings, 2) for _ in range(ROUNDS)])
    held = partial(work, commit_rows=HELD_ROWS)
    held_one, held_two = (together(held, settings, workers, SHARE) for workers in (1, 2))
    one = ours[0]
    return [
        *figures,
        Figure(
            "two workers on two partitions, relative to one",
            f"{twice.wall / one.wall:.2f} times ({twice.wall:,.0f} ticks/s)",
            "1.6 times, with enough cores",
            twice.wall / one.wall >= 1.6,
            f"{os.cpu_count()} cores for two workers and the broker; work per tick {one.cpu / twice.cpu:.2f} times "
            "that of one worker",
        ),
        Figure(
            f"the same, each worker limited to {SHARE:.0%} of a core",
            f"{held_two.wall / held_one.wall:.2f} times ({held_one.wall:,.0f} → {held_two.wall:,.0f} ticks/s)",
            "1.6 times, with enough cores",
            held_two.wall / held_one.wall >= 1.6,
            f"work per tick {held_one.cpu / held_two.cpu:.2f} times that of one worker",
        ),
    ]
