"""Brokers that tests and benchmarks start on loopback: Apache Kafka itself, and librdkafka's imitation of it."""

from tests.streams.brokers.cluster import Cluster
from tests.streams.brokers.kafka import Kafka
from tests.streams.brokers.mock import MockKafka

__all__ = ["Cluster", "Kafka", "MockKafka"]
