"""The partitions that a worker has: brought to what is committed when they come, closed when they go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from volspike.streams.clients import stream_error
from volspike.streams.links import ASK_S, is_passing
from volspike.streams.recovery import Held, Recovery, offset_of
from volspike.streams.settings import KafkaSettings


class Partitions:
    """The partitions of ``topic`` that are held, each with its stage.

    Args:
        gives_up: whether to stop asking a cluster that does not answer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        recovery: Recovery,
        *,
        gives_up: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._recovery = recovery
        self._gives_up = gives_up
        self._clock = clock
        self._held: dict[int, Held] = {}

    def get(self, number: int) -> Held | None:
        """The partition of this number, if it is held."""
        return self._held.get(number)

    def all(self) -> list[Held]:
        """All of them."""
        return list(self._held.values())

    def by_number(self) -> dict[int, Held]:
        """All of them as they are now, whatever comes or goes after."""
        return dict(self._held)

    def bring(self, consumer: Any, numbers: Iterable[int]) -> list[TopicPartition]:
        """Takes partitions in at their committed offsets; where each is to be read from.

        Raises:
            StreamTruncated, SchemaMismatch: as ``Recovery.recover`` does.
            StreamError: the cluster refuses, or it was given up.
        """
        places = [TopicPartition(self._topic, number) for number in numbers]
        for place in self._committed(consumer, places) if places else ():
            held = self._recovery.recover(place.partition, offset_of(place), place.metadata, self._clock())
            self._held[place.partition] = held
        return [TopicPartition(self._topic, place.partition, self._held[place.partition].position) for place in places]

    def bring_back(self, consumer: Any) -> None:
        """Goes back to what is committed. Partitions that are lost, which only the next poll tells, go then."""
        for place in self.bring(consumer, [place.partition for place in consumer.assignment()]):
            try:
                consumer.seek(place)
            except KafkaException:  # it was assigned a moment ago, and is not being read yet
                consumer.incremental_unassign([place])
                consumer.incremental_assign([place])

    def let_go(self, numbers: Iterable[int]) -> None:
        """Closes what of these is held; what is not committed is forgotten."""
        for number in numbers:
            held = self._held.pop(number, None)
            if held is not None:
                held.stage.close()

    def let_all_go(self) -> None:
        """Closes all."""
        self.let_go(list(self._held))

    def _committed(self, consumer: Any, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Waits while a transaction that may yet commit others is open, and while nobody answers."""
        while True:
            try:
                found: list[TopicPartition] = consumer.committed(list(places), ASK_S)
            except KafkaException as error:
                cause = error.args[0]
                if self._gives_up() or not is_passing(cause):
                    raise stream_error(self._settings, cause, self._topic) from error
            else:
                return found
