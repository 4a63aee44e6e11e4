"""Without a broker nothing hangs, and every lost message is counted."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.streams.brokers.ports import free_ports
from tests.tape.recording import ticker
from volspike.errors import BrokerUnavailable, StreamError
from volspike.market import SECOND_NS
from volspike.streams.clients import KafkaSettings, cluster_metadata
from volspike.streams.producer import STALLED_AFTER_S, TickRelay, TopicProducer
from volspike.streams.topics import check_topic, describe_topics
from volspike.streams.wire import tick_message

NOON = 1_700_049_600 * SECOND_NS


@pytest.fixture
def absent() -> KafkaSettings:
    """A cluster on a loopback port without a listener."""
    return KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}", options={"sasl.password": "hush"})


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_asks_is_told_where_nobody_answers(absent: KafkaSettings) -> None:
    """The error names the address and what the connection said, and no secret."""
    with pytest.raises(BrokerUnavailable, match="Connection refused") as told:
        cluster_metadata(absent, within_s=0.5)
    assert absent.bootstrap_servers in str(told.value)
    assert "hush" not in repr(told.value)


def test_the_check_does_not_wait_for_its_own_timeout(absent: KafkaSettings) -> None:
    """A check that may take an hour ends once it is clear that there is no broker."""
    with pytest.raises(BrokerUnavailable):
        check_topic(absent, "ticks.raw", 1, 3600.0)


def test_a_relay_takes_what_fits_and_counts_the_rest(absent: KafkaSettings) -> None:
    """Frames are accepted without waiting; those beyond the queue's capacity are counted as not delivered."""
    told: list[str] = []
    relay = TickRelay(absent, told.append, queued=5)
    for k in range(12):
        relay.frame(*ticker(NOON + k))
    assert (relay.refused, relay.undelivered, relay.delivered) == (7, 12, 0)
    relay.close(0.0)
    assert (relay.undelivered, relay.delivered) == (12, 0)


def test_a_stall_is_told_once(absent: KafkaSettings) -> None:
    """Nothing delivered for some seconds is one warning, however long it lasts; a silent market is none."""
    clock, told = Clock(), list[str]()
    relay = TickRelay(absent, told.append, clock=clock)
    clock.now = 100.0
    relay.tick()
    relay.frame(*ticker(NOON))
    clock.now += STALLED_AFTER_S / 2
    relay.tick()
    assert told == []
    for _ in range(3):
        clock.now += STALLED_AFTER_S
        relay.tick()
    assert len(told) == 1
    assert "waiting: 1" in told[0]
    relay.close(0.0)


def test_a_message_that_was_given_up_stops_the_sender(absent: KafkaSettings) -> None:
    """The next send reports that an earlier message was not delivered, with count and reason."""
    producer = TopicProducer(absent, "ticks.raw", give_up_s=0.05)
    producer.send(tick_message("BTC-USD", b"x", NOON))
    producer.flush(30.0)
    assert (producer.failed, producer.waiting) == (1, 0)
    with pytest.raises(StreamError, match="1 of 2 messages were not delivered"):
        producer.send(tick_message("BTC-USD", b"y", NOON))
    producer.give_up()
    assert (producer.failed, producer.delivered) == (2, 0)


class LateLeader:
    """An admin client of a cluster whose partitions have a leader from the ``calls``-th request on."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def list_offsets(self, places: dict[TopicPartition, Any], **_: object) -> dict[TopicPartition, Future[Any]]:
        self.left -= 1
        outcome: Future[Any] = Future()
        if self.left > 0:
            outcome.set_exception(KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)))
        else:
            outcome.set_result(SimpleNamespace(offset=5))
        return dict.fromkeys(places, outcome)


def test_a_leader_that_is_not_known_yet_is_awaited(absent: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic can be described right after its creation; without a leader in time it is an error."""
    part = SimpleNamespace(leader=1, replicas=[1], isrs=[1])
    topics = {"raw": SimpleNamespace(partitions={0: part})}
    monkeypatch.setattr("volspike.streams.topics.cluster_metadata", lambda *_: SimpleNamespace(topics=topics))
    late = LateLeader(calls=3)
    monkeypatch.setattr("volspike.streams.topics.open_admin", lambda _: late)
    (extent,) = describe_topics(absent, within_s=5.0)
    assert (extent.partitions[0].low, extent.partitions[0].high) == (5, 5)
    late.left = 1_000
    with pytest.raises(StreamError, match="Not leader"):
        describe_topics(absent, within_s=0.15)
