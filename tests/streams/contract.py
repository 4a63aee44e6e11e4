"""Behaviour on every broker, imitated or real. Each suite subclasses it and provides its ``cluster``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from tests.streams.brokers import Cluster
from tests.streams.lines import lines_of, write_tape
from tests.tape.recording import ticker
from tests.tape.strategies import tick_at
from volspike.errors import TopicMissing
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import SECOND_NS, Profile
from volspike.streams.clients import KafkaSettings, open_consumer, require_topic
from volspike.streams.producer import TickRelay, TopicProducer
from volspike.streams.replay import ReplayProgress, replay, tape_messages
from volspike.streams.topics import check_topic, describe_topics
from volspike.streams.wire import FeatureHeaders, FeatureRowCodec, decode_feature_headers, tick_message
from volspike.tape import TapeReport

PAIRS = ("BTC-USD", "ETH-USD", "SOL-USD", "DOGE-USD")
PARTITIONS = 3
WITHIN_S = 30.0


def read_topic(settings: KafkaSettings, topic: str, count: int) -> list[Message]:
    """The next ``count`` messages from the beginning; fewer where no more come in time."""
    consumer = open_consumer(settings, group_id="reader", fetch_wait_max_ms=5)
    found: list[Message] = []
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        while len(found) < count and (part := consumer.consume(count - len(found), WITHIN_S)):
            found += part
    finally:
        consumer.close()
    assert [message.error() for message in found if message.error()] == []
    return found


def by_key(messages: Sequence[Message]) -> dict[str, list[bytes]]:
    """The values of each key, in the order of their offsets."""
    values: dict[str, list[bytes]] = {}
    for message in sorted(messages, key=lambda each: (each.partition(), each.offset())):
        values.setdefault(message.key().decode(), []).append(message.value())
    return values


class BrokerContract:
    """The tests; ``cluster`` is a fixture of the suite."""

    @pytest.fixture
    def settings(self, cluster: Cluster) -> KafkaSettings:
        """The cluster with a fresh topic of three partitions for ticks."""
        settings = KafkaSettings(bootstrap_servers=cluster.bootstrap, topic_raw=f"ticks-{uuid4().hex[:8]}")
        cluster.create_topic(settings.topic_raw, PARTITIONS)
        return settings

    def test_ticks_arrive_once_in_order_with_key_and_time(self, settings: KafkaSettings) -> None:
        """Each product's lines lie in one partition in their order, with the receive time as Kafka's."""
        sent = [tick_message(PAIRS[k % 4], b'{"k":%d}' % k, 1_700_000_000 * SECOND_NS + k * 10**6) for k in range(400)]
        with TopicProducer(settings, settings.topic_raw) as producer:
            for message in sent:
                producer.send(message)
        assert (producer.taken, producer.delivered, producer.failed, producer.waiting) == (400, 400, 0, 0)
        found = read_topic(settings, settings.topic_raw, 400)
        assert by_key(found) == {pair: [m.value for m in sent if m.key == pair.encode()] for pair in PAIRS}
        assert len({(message.key(), message.partition()) for message in found}) == len(PAIRS)
        assert {m.value(): m.timestamp()[1] for m in found} == {m.value: m.timestamp_ms for m in sent}

    def test_a_full_queue_is_waited_for(self, settings: KafkaSettings) -> None:
        """With a queue of ten messages five hundred are sent, and all arrive in order."""
        sent = [tick_message("BTC-USD", b"%d" % k, k * 10**6) for k in range(500)]
        with TopicProducer(settings, settings.topic_raw, queued=10) as producer:
            for message in sent:
                producer.send(message)
        assert by_key(read_topic(settings, settings.topic_raw, 500)) == {"BTC-USD": [m.value for m in sent]}

    def test_a_tape_replays_byte_for_byte(self, settings: KafkaSettings, tmp_path: Path) -> None:
        """The topic contains the tape's lines unchanged, in order per product."""
        ticks = [tick_at(k * SECOND_NS // 10, 100.0 + k, PAIRS[k % 4]) for k in range(300)]
        tape = write_tape(tmp_path / "tape.ndjson", ticks)
        with TopicProducer(settings, settings.topic_raw) as producer:
            replay(tape_messages(tape, TapeReport()), producer, 0.0, ReplayProgress())
        lines = lines_of(tape)
        expected = {pair: [line for line, tick in zip(lines, ticks, strict=True) if tick.product_id == pair]
                    for pair in PAIRS}  # fmt: skip
        assert by_key(read_topic(settings, settings.topic_raw, 300)) == expected

    def test_the_relay_sends_what_the_recorder_would_write(self, settings: KafkaSettings) -> None:
        """Frames become tape lines with the exchange's message, and all of them count as delivered."""
        frames = [ticker(1_700_000_000 * SECOND_NS + k, 100.0 + k) for k in range(20)]
        told: list[str] = []
        relay = TickRelay(settings, told.append)
        for frame in frames:
            relay.frame(*frame)
        relay.close(WITHIN_S)
        assert (relay.delivered, relay.undelivered, told) == (20, 0, [])
        values = by_key(read_topic(settings, settings.topic_raw, 20))["BTC-USD"]
        assert all(frame.data in value for frame, value in zip(frames, values, strict=True))

    def test_the_check_counts_from_the_beginning_each_time(self, settings: KafkaSettings) -> None:
        """Enough messages end the check at once, and a second check finds the same ones."""
        with TopicProducer(settings, settings.topic_raw) as producer:
            for k in range(30):
                producer.send(tick_message(PAIRS[k % 2], b"12345", 1_700_000_000 * SECOND_NS + k * SECOND_NS))
        for _ in range(2):
            found = check_topic(settings, settings.topic_raw, 30, WITHIN_S)
            assert (found.messages, found.bytes) == (30, 150)
            assert found.keys == {"BTC-USD": 15, "ETH-USD": 15}
            assert (found.first_ms, found.last_ms) == (1_700_000_000_000, 1_700_000_029_000)

    def test_the_check_gives_up_in_time(self, settings: KafkaSettings) -> None:
        """If fewer messages arrive than required, it reports the number after the given time."""
        with TopicProducer(settings, settings.topic_raw) as producer:
            producer.send(tick_message("BTC-USD", b"x", 10**9))
        times = iter([0.0, *[0.1 * k for k in range(20)], *[1e9] * 10])
        found = check_topic(settings, settings.topic_raw, 2, 100.0, clock=lambda: next(times))
        assert found.messages == 1

    def test_a_missing_topic_is_named(self, settings: KafkaSettings) -> None:
        """A topic that the cluster does not have is an error, not a wait."""
        with pytest.raises(TopicMissing, match="no-such-topic"):
            check_topic(settings, "no-such-topic", 1, WITHIN_S)
        assert require_topic(settings, settings.topic_raw) == PARTITIONS

    def test_a_topic_is_described_by_its_partitions(self, settings: KafkaSettings) -> None:
        """The extents of the partitions add up to what was sent; topics that are not there are left out."""
        with TopicProducer(settings, settings.topic_raw) as producer:
            for k in range(50):
                producer.send(tick_message(PAIRS[k % 4], b"x", 10**9))
        (extent,) = describe_topics(settings, [settings.topic_raw, "no-such-topic"])
        assert (extent.name, len(extent.partitions), extent.offsets) == (settings.topic_raw, PARTITIONS, 50)
        assert settings.topic_raw in {topic.name for topic in describe_topics(settings)}

    def test_feature_rows_survive_the_way(self, settings: KafkaSettings) -> None:
        """A row and its headers are read as they were written."""
        feature_set = FeatureSet((3, 10))
        engine = FeatureEngine(feature_set, Profile.TICKER, Every.TICK)
        row = [row for k in range(20) for row in engine.update(tick_at(k * SECOND_NS, 100.0 + k))][-1]
        told = FeatureHeaders(digest=feature_set.digest, every=Every.TICK, profile=Profile.TICKER, simulated=True)
        codec = FeatureRowCodec(feature_set)
        with TopicProducer(settings, settings.topic_raw) as producer:
            producer.send(tick_message("BTC-USD", codec.encode(row), row.timestamp), told.encode())
        (message,) = read_topic(settings, settings.topic_raw, 1)
        assert decode_feature_headers(message.headers()) == told
        assert codec.encode(codec.decode(message.value())) == codec.encode(row)
