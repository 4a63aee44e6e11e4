"""The loop on a cluster in memory that fails wherever a test, or chance, wants it to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streams.fake_kafka import PARTITIONS, Crash, FakeCluster, FakeEnd
from tests.tape.strategies import tick_at
from volspike.errors import SchemaMismatch, StreamError, StreamTruncated, WorkerFenced
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import SECOND_NS, Profile, Tick, Ticks
from volspike.streams.clients import KafkaSettings
from volspike.streams.featurizer import featurizer_factory
from volspike.streams.metrics import WorkerProgress
from volspike.streams.sink import facts_for, merge_parts, parquet_sink
from volspike.streams.state import Bookmark, MakeStage, WorkerPlan
from volspike.streams.transactions import Transactions
from volspike.streams.wire import FeatureRowCodec
from volspike.streams.worker import Partitions, Worker
from volspike.tape import tape_line

SET = FeatureSet((3, 10))
PAIRS = ("A", "B", "C")
FAULTS = st.dictionaries(
    st.integers(1, 60), st.sampled_from(["abort", "unknown", "retry", "crash", "crash-after"]), max_size=12
)


def market(count: int = 90) -> list[Tick]:
    return [tick_at(k * SECOND_NS // 4, 100.0 + (k * 7919) % 13, PAIRS[k % 3]) for k in range(count)]


def filled(ticks: Sequence[Tick], damaged: Sequence[int] = (), **more: object) -> FakeCluster:
    """A cluster with these ticks, and a damaged message before those of the given numbers."""
    cluster = FakeCluster(**more)  # type: ignore[arg-type]
    for number, tick in enumerate(ticks):
        key = tick.product_id.encode()
        if number in damaged:
            cluster.append("ticks.raw", sum(key) % PARTITIONS, key, b"damaged %d" % number)
        cluster.append("ticks.raw", sum(key) % PARTITIONS, key, tape_line(tick).rstrip())
    return cluster


def plan(**more: object) -> WorkerPlan:
    told = {"group": "g", "name": "w", "topic_in": "ticks.raw", "topic_out": "ticks.features", "snapshot_rows": 11}
    return WorkerPlan(**{**told, "snapshot_s": 1e9, **more})  # type: ignore[arg-type]


def worked(cluster: FakeCluster, make: MakeStage | None = None, **more: object) -> WorkerProgress:
    """A worker until there is nothing more to take; one that crashes is started again."""
    while True:
        polls = cluster.polls

        def stop(since: int = polls) -> bool:
            wanted = sum(len(log) for (topic, _), log in cluster.logs.items() if topic == "ticks.raw")
            done = sum(place.offset for place in cluster.committed.values())
            return cluster.polls > since + 2_000 or (done >= wanted and cluster.polls > since + 2)

        try:
            return Worker(
                cluster, plan(**more), make or featurizer_factory(SET, Profile.TICKER, Every.TICK), stop=stop
            ).run()
        except Crash:
            continue


def expected(ticks: Sequence[Tick]) -> dict[str, list[bytes | None]]:
    codec = FeatureRowCodec(SET)
    values: dict[str, list[bytes | None]] = {}
    for rows in FeatureEngine(SET, Profile.TICKER, Every.TICK).run(Ticks.of(ticks)):
        for code, value in zip(rows.product.tolist(), codec.encode_rows(rows), strict=True):
            values.setdefault(rows.products[code], []).append(value)
    return values


@given(FAULTS, st.integers(1, 20), st.frozensets(st.integers(2, 60), max_size=5))
def test_each_tick_has_one_row_whatever_fails(faults: dict[int, str], batch: int, rebalances: frozenset[int]) -> None:
    """Aborts, commits of unknown outcome, crashes and rebalances at any moment leave a plain replay's rows."""
    ticks = market()
    cluster = filled(ticks, damaged=(0, 31, 32, 89), faults=faults, batch=batch, rebalance_at=rebalances)
    worked(cluster)
    assert cluster.values("ticks.features") == expected(ticks)
    dead = [value for values in cluster.values("ticks.dead").values() for value in values]
    assert sorted(value or b"" for value in dead) == [b"damaged 0", b"damaged 31", b"damaged 32", b"damaged 89"]


@settings(max_examples=25)  # each writes and merges files
@given(FAULTS, st.integers(1, 20))
def test_the_file_has_each_row_once_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, faults: dict[int, str], batch: int
) -> None:
    """PartFile files lie end to end over crashes, and together hold what the topic holds."""
    ticks = market(60)
    file = tmp_path_factory.mktemp("sink") / "features.parquet"
    cluster = filled(ticks, faults=faults, batch=batch)
    sink = parquet_sink(file, "g", "ticks.raw", facts_for(SET, Every.TICK, Profile.TICKER))
    worked(cluster, featurizer_factory(SET, Profile.TICKER, Every.TICK, sink))
    cluster.faults = {}
    worked(cluster, featurizer_factory(SET, Profile.TICKER, Every.TICK, sink))
    merged = merge_parts(file)
    assert (merged.rows, merged.elsewhere) == (60, [])
    assert cluster.values("ticks.features") == expected(ticks)


def test_a_snapshot_spares_reading_back(tmp_path: Path) -> None:
    """After an orderly end nothing is read twice; after a crash at most what came since the newest snapshot."""
    del tmp_path
    ticks = market()
    cluster = filled(ticks)
    assert worked(cluster).recovered == 0
    cluster.append("ticks.raw", 1, b"A", tape_line(tick_at(30 * SECOND_NS, 5.0, "A")).rstrip())
    assert worked(cluster).recovered == 0
    crashed = filled(ticks, faults={20: "crash"})
    assert 0 < worked(crashed).recovered <= 2 * 11 + 5


def test_a_cut_log_is_a_clear_error_and_a_cold_start_goes_on() -> None:
    """Where neither snapshot nor log has the past, nothing is made up; on request windows begin empty."""
    ticks = market()
    cluster = filled(ticks)
    worked(cluster)
    cluster.committed = {n: TopicPartition("ticks.raw", n, at.offset - 10) for n, at in cluster.committed.items()}
    cluster.low = 5
    with pytest.raises(StreamTruncated, match=r"ticks.raw\[0\]: there is no snapshot.*--cold-start"):
        worked(cluster)
    before = sum(map(len, cluster.values("ticks.features").values()))
    worked(cluster, cold_start=True)
    assert sum(map(len, cluster.values("ticks.features").values())) == before + 10 * PARTITIONS


def test_unread_messages_that_were_deleted_are_a_clear_error() -> None:
    """A gap between the consumed and the remaining messages is an error."""
    cluster = filled(market())
    worked(cluster)
    told = Bookmark(alerted=3).encode()
    cluster.committed = {n: TopicPartition("ticks.raw", n, 3, told) for n in cluster.committed}
    cluster.low = 7
    with pytest.raises(StreamTruncated, match="offsets 3 to 7 were deleted before they were processed"):
        worked(cluster)


def test_other_features_in_the_same_group_are_refused() -> None:
    """A group's state is of one feature set; the way out is named."""
    cluster = filled(market())
    worked(cluster)
    with pytest.raises(SchemaMismatch, match="use a new --group"):
        worked(cluster, featurizer_factory(FeatureSet((3, 20)), Profile.TICKER, Every.TICK))


def test_a_worker_whose_name_is_taken_stops() -> None:
    """The older of two workers with one name gets an error and commits nothing more."""
    cluster = filled(market())
    stopped = []

    def stop() -> bool:
        stopped.append(cluster.producer("g-w"))
        return False

    with pytest.raises(WorkerFenced, match="its own --worker name"):
        Worker(cluster, plan(), featurizer_factory(SET, Profile.TICKER, Every.TICK), stop=stop).run()
    assert cluster.values("ticks.features") == {}


def test_a_client_that_never_comes_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hangs takes its producer with it; the next one of its name does the work again, once."""
    monkeypatch.setattr("volspike.streams.transactions.STUCK_AFTER_S", 0.05)
    ticks = market()
    cluster = filled(ticks, silent_at=frozenset({2, 3, 7}))
    try:
        progress = worked(cluster)
    finally:
        cluster.answers.set()
    assert cluster.values("ticks.features") == expected(ticks)
    assert progress.aborts == 3
    assert cluster.epoch == 4


def test_what_never_passes_is_not_tried_for_ever() -> None:
    """After ten aborted transactions in a row the cause is raised."""
    cluster = filled(market(), faults=dict.fromkeys(range(1, 100), "abort"))
    with pytest.raises(StreamError, match="moved"):
        worked(cluster)


def test_a_worker_that_is_to_end_waits_for_its_share() -> None:
    """Who joins a group at work is given nothing at first, and does not take that for the end."""
    ticks = market()
    cluster = filled(ticks, assigned_from=5)
    told = Worker(
        cluster, plan(finish=True), featurizer_factory(SET, Profile.TICKER, Every.TICK), clock=Seconds()
    ).run()
    assert (told.messages, told.is_settled) == (len(ticks), True)
    assert cluster.values("ticks.features") == expected(ticks)


def test_a_worker_that_others_leave_nothing_ends() -> None:
    """More workers than partitions: one without any ends once it has waited."""
    cluster = filled(market(), assigned_from=10**9)
    told = Worker(
        cluster, plan(finish=True), featurizer_factory(SET, Profile.TICKER, Every.TICK), clock=Seconds()
    ).run()
    assert (told.messages, told.is_settled) == (0, True)


class Seconds:
    """A clock that advances by a tenth of a second at each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


class Hours:
    """A clock that only its ``sleep`` advances, as for errors that are returned at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)


RETRIABLE = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading", False, True, False)


def fail(*_: object) -> NoReturn:
    raise KafkaException(RETRIABLE)


def test_a_retriable_error_that_is_returned_at_once_is_retried_with_pauses() -> None:
    """In a minute a call is attempted about 65 times, not millions of times; a stop ends it."""
    time = Hours()
    producer = SimpleNamespace(init_transactions=fail)
    transactions = Transactions(
        KafkaSettings(), lambda: producer, should_stop=lambda: time.now > 60, clock=time, sleep=time.sleep
    )
    with pytest.raises(StreamError, match="loading"):
        transactions.start()
    assert time.sleeps[:9] == [0.005 * 2**k for k in range(8)] + [1.0]
    assert len(time.sleeps) < 70


def test_committed_offsets_are_requested_with_pauses() -> None:
    """A coordinator that is loading is not flooded with requests when partitions are assigned."""
    time = Hours()
    recovery: Any = None
    partitions = Partitions(
        KafkaSettings(), "ticks.raw", recovery, should_stop=lambda: time.now > 60, clock=time, sleep=time.sleep
    )
    with pytest.raises(StreamError, match="loading"):
        partitions.recover(SimpleNamespace(committed=fail), [0])
    assert 60 < len(time.sleeps) < 70


def test_polls_that_return_only_errors_pause() -> None:
    """A consumer that returns a transient error at once is polled ten times a second; an end is no error."""
    time = Hours()
    recovery: Any = None
    partitions = Partitions(KafkaSettings(), "ticks.raw", recovery, should_stop=lambda: False, sleep=time.sleep)
    message = SimpleNamespace(error=lambda: RETRIABLE, partition=lambda: 0)
    for _ in range(3):
        assert partitions.poll(SimpleNamespace(consume=lambda *_: [message]), 10, 0.0) == []
    assert time.sleeps == [0.1, 0.1, 0.1]
    partitions.poll(SimpleNamespace(consume=lambda *_: [FakeEnd(0)]), 10, 0.0)
    assert len(time.sleeps) == 3


def test_transactions_that_abort_again_and_again_pause() -> None:
    """The pause between aborted transactions doubles, and a commit resets it."""
    time = Hours()
    ticks = market()
    cluster = filled(ticks, faults=dict.fromkeys((1, 2, 3, 8), "abort"))
    Worker(
        cluster,
        plan(finish=True),
        featurizer_factory(SET, Profile.TICKER, Every.TICK),
        clock=Seconds(),
        sleep=time.sleep,
    ).run()
    assert time.sleeps == [0.005, 0.01, 0.02, 0.005]
    assert cluster.values("ticks.features") == expected(ticks)
