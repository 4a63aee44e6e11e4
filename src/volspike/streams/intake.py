"""What a worker takes next: the messages that came, by partition, and what the consumer says in their place."""

from __future__ import annotations

from typing import Any, Final

from volspike.errors import StreamTruncated
from volspike.streams.clients import stream_error
from volspike.streams.links import is_passing
from volspike.streams.partitions import Partitions
from volspike.streams.recovery import Held
from volspike.streams.settings import KafkaSettings

IDLE_S: Final = 0.1
"""How long a poll waits for a first message; also how soon a wish to stop is seen."""


class Intake:
    """Polls for the partitions that are held. At most ``most`` messages come at a time."""

    def __init__(self, settings: KafkaSettings, topic: str, partitions: Partitions, most: int) -> None:
        self._settings = settings
        self._topic = topic
        self._partitions = partitions
        self._most = most

    def poll(self, consumer: Any, wait_s: float) -> list[tuple[Held, list[Any]]]:
        """The next messages of each partition; after a first one, more are awaited for ``wait_s``.

        Those of a partition that went meanwhile are left out: they come again.

        Raises:
            StreamTruncated: messages were deleted before they were read.
            StreamError: the cluster refuses.
        """
        first = consumer.consume(1, IDLE_S)
        owners = self._partitions.by_number()
        if not first:
            return []
        rest = consumer.consume(self._most - 1, max(0.0, wait_s)) if self._most > 1 else []
        batches: dict[int, list[Any]] = {}
        expected: dict[int, int] = {}
        for place, message in enumerate((*first, *rest)):
            error = message.error()
            number = message.partition()
            if error is not None:
                self._refuse(error, number)
                continue
            held = self._partitions.get(number)
            if held is None or (place == 0 and owners.get(number) is not held):
                continue
            offset = message.offset()
            if offset < expected.get(number, held.position):
                continue
            expected[number] = offset + 1
            batches.setdefault(number, []).append(message)
            held.has_ended = False
        found = ((self._partitions.get(number), batch) for number, batch in batches.items())
        return [(held, batch) for held, batch in found if held is not None]

    def _refuse(self, error: Any, number: int) -> None:
        """Acts on what the consumer says instead of a message."""
        name = error.name()
        if name == "_PARTITION_EOF":
            if (held := self._partitions.get(number)) is not None:
                held.has_ended = True
        elif name in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            reason = "the log was cut before it was read, or is another one"
            raise StreamTruncated(self._topic, number, reason)
        elif error.fatal() or not is_passing(error):
            raise stream_error(self._settings, error, self._topic)
