"""What Apache Kafka keeps of the pipeline's topics."""

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
    """The cluster with topics that nobody else has."""
    mark = uuid4().hex[:8]
    return KafkaSettings(
        bootstrap_servers=cluster.bootstrap,
        topic_raw=f"raw-{mark}",
        topic_features=f"features-{mark}",
        topic_predictions=f"predictions-{mark}",
        topic_dead=f"dead-{mark}",
        topic_state=f"state-{mark}",
    )


def test_topics_are_made_once(settings: KafkaSettings) -> None:
    """A second call makes nothing and finds nothing that differs."""
    first = create_topics(settings, pipeline_topics(settings))
    assert [(topic.is_new, topic.partitions) for topic in first] == [(True, 3)] * 5
    second = create_topics(settings, pipeline_topics(settings))
    assert [(topic.is_new, topic.partitions, dict(topic.differs)) for topic in second] == [(False, 3, {})] * 5
    assert {topic.name for topic in first} <= {topic.name for topic in describe_topics(settings)}


def test_what_differs_is_told_and_left(settings: KafkaSettings) -> None:
    """A topic that somebody made otherwise stays so; each setting that was planned otherwise is named."""
    made = {"retention.ms": "1000", "cleanup.policy": "compact"}
    create_topics(settings, [TopicPlan(settings.topic_raw, made, partitions=1)])
    told = create_topics(settings, pipeline_topics(settings))[0]
    assert not told.is_new
    assert told.differs["partitions"] == ("1", "3")
    assert told.differs["retention.ms"] == ("1000", "-1")
    assert told.differs["cleanup.policy"] == ("compact", "delete")
    assert [len(topic.partitions) for topic in describe_topics(settings, [settings.topic_raw])] == [1]


def test_more_copies_than_brokers_are_refused(settings: KafkaSettings) -> None:
    """The cluster's refusal names the topic."""
    with pytest.raises(StreamError, match=settings.topic_raw):
        create_topics(settings, pipeline_topics(settings, copies=3))


def test_ticks_of_another_year_are_kept(settings: KafkaSettings) -> None:
    """Neither an old tape nor a market that runs ahead of the clock is refused or thrown away."""
    create_topics(settings, pipeline_topics(settings))
    years = [10**18, 1_400_000_000 * 10**9, 4_000_000_000 * 10**9]  # 2001, 2014, 2096
    with TopicProducer(settings, settings.topic_raw) as producer:
        for received in years:
            producer.send(tick_message("BTC-USD", b"x", received))
    found = check_topic(settings, settings.topic_raw, 3, 30.0)
    assert (found.first_ms, found.last_ms) == (10**12, 4_000_000_000_000)
