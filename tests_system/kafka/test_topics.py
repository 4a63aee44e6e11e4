"""The topics of the pipeline on Apache Kafka: creation, settings and retention."""

from __future__ import annotations

from uuid import uuid4

import pytest
from tests.streams.brokers import Kafka

from volspike.errors import StreamError
from volspike.streams.clients import KafkaSettings
from volspike.streams.producer import TopicProducer
from volspike.streams.topics import TopicPlan, check_topic, create_topics, describe_topics, pipeline_topics
from volspike.streams.wire import tick_message


@pytest.fixture
def settings(cluster: Kafka) -> KafkaSettings:
    """The settings of the cluster, with topic names of this test alone."""
    mark = uuid4().hex[:8]
    return KafkaSettings(
        bootstrap_servers=cluster.bootstrap,
        topic_raw=f"raw-{mark}",
        topic_features=f"features-{mark}",
        topic_predictions=f"predictions-{mark}",
        topic_dead=f"dead-{mark}",
        topic_state=f"state-{mark}",
    )


def test_topics_are_created_once(settings: KafkaSettings) -> None:
    """A second call creates no topic and finds no different setting."""
    first = create_topics(settings, pipeline_topics(settings))
    assert [(topic.is_new, topic.partitions) for topic in first] == [(True, 3)] * 5
    second = create_topics(settings, pipeline_topics(settings))
    assert [(topic.is_new, topic.partitions, dict(topic.differs)) for topic in second] == [(False, 3, {})] * 5
    assert {topic.name for topic in first} <= {topic.name for topic in describe_topics(settings)}


def test_different_settings_are_reported_and_kept(settings: KafkaSettings) -> None:
    """An existing topic keeps its settings; each one that differs from the plan is reported."""
    existing = {"retention.ms": "1000", "cleanup.policy": "compact"}
    create_topics(settings, [TopicPlan(settings.topic_raw, existing, partitions=1)])
    topic = create_topics(settings, pipeline_topics(settings))[0]
    assert not topic.is_new
    assert topic.differs["partitions"] == ("1", "3")
    assert topic.differs["retention.ms"] == ("1000", "-1")
    assert topic.differs["cleanup.policy"] == ("compact", "delete")
    assert [len(topic.partitions) for topic in describe_topics(settings, [settings.topic_raw])] == [1]


def test_more_copies_than_brokers_are_refused(settings: KafkaSettings) -> None:
    """The error of the cluster names the topic."""
    with pytest.raises(StreamError, match=settings.topic_raw):
        create_topics(settings, pipeline_topics(settings, copies=3))


def test_ticks_of_other_years_are_kept(settings: KafkaSettings) -> None:
    """Ticks of an old tape, and ticks from the future, are neither refused nor deleted."""
    create_topics(settings, pipeline_topics(settings))
    years = [10**18, 1_400_000_000 * 10**9, 4_000_000_000 * 10**9]  # 2001, 2014, 2096
    with TopicProducer(settings, settings.topic_raw) as producer:
        for received in years:
            producer.send(tick_message("BTC-USD", b"x", received))
    found = check_topic(settings, settings.topic_raw, 3, 30.0)
    assert (found.first_ms, found.last_ms) == (10**12, 4_000_000_000_000)
