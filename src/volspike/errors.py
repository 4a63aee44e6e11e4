"""Every error that volspike raises, by what the caller can do about it.

    VolspikeError
    ├── UsageError            invalid command or call: correct it                     exit status 2
    ├── DataError             invalid data                                            exit status 3
    │   ├── MalformedTick     one frame or line: reject it and continue
    │   ├── UnreadableFile    a file that is not what it should be: give another
    │   └── NotEnoughData     too few rows, or rows of one class only: record more
    ├── ModelError            the model cannot be used                                exit status 4
    │   ├── ArtifactMissing   no artifact: train one
    │   ├── ArtifactCorrupt   the files have changed: train or copy it again
    │   └── SchemaMismatch    other features than the model's: retrain, or serve another
    ├── PluginFailed          code of another distribution fails: correct it          exit status 4
    ├── WorkerLost            a worker process ended early: run the command again     exit status 4
    └── StreamError           Kafka refuses a request                                 exit status 4
        ├── BrokerUnavailable no broker answers: retry, or give another address
        ├── TopicMissing      the topic does not exist: create it
        ├── StreamTruncated   required messages are deleted: restart with --cold-start
        └── WorkerFenced      another worker has the same name: stop, or use another name

The text of an error is one line: what happened, where, what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class VolspikeError(Exception):
    """Base of all errors; ``exit_status`` is the exit status of the command line."""

    exit_status = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Some classes take fields instead of a text, so pickle's call of the class with ``args`` would fail.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[VolspikeError], args: tuple[Any, ...], fields: dict[str, Any]) -> VolspikeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(VolspikeError):
    """A command or call with an invalid, unknown or contradictory argument."""

    exit_status = 2


class DataError(VolspikeError):
    """Data that is invalid or insufficient."""

    exit_status = 3


class MalformedTick(DataError):
    """One frame or tape line that cannot be decoded.

    ``path`` locates the fault in the message (``$.events[0].tickers[2].price``), ``reason`` describes it.
    """

    def __init__(self, reason: str, path: str = "$") -> None:
        self.reason = reason
        self.path = path
        super().__init__(f"{reason} at {path}")


class UnreadableFile(DataError):
    """A file that cannot be read or has other content than expected; ``file`` is its path."""

    def __init__(self, file: object, reason: str) -> None:
        self.file = str(file)
        self.reason = reason
        super().__init__(f"{file}: {reason}")


class NotEnoughData(DataError):
    """Too little data to train on or to evaluate."""


class ModelError(VolspikeError):
    """The model cannot be used."""

    exit_status = 4


class ArtifactMissing(ModelError):
    """No artifact at the given place."""


class ArtifactCorrupt(ModelError):
    """An artifact whose files differ from those that were written."""


class SchemaMismatch(ModelError):
    """Features other than those the model was trained on; ``missing`` and ``unexpected`` are their names."""

    def __init__(
        self, what: str, *, missing: Iterable[str] = (), unexpected: Iterable[str] = (), remedy: str = ""
    ) -> None:
        self.what = what
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        parts = [what]
        if self.missing:
            parts.append(f"missing: {', '.join(self.missing)}")
        if self.unexpected:
            parts.append(f"unexpected: {', '.join(self.unexpected)}")
        if remedy:
            parts.append(remedy)
        super().__init__("; ".join(parts))


class PluginFailed(VolspikeError):
    """A plug-in of another distribution that raised, or returned something invalid; the text names the distribution."""

    exit_status = 4


class WorkerLost(VolspikeError):
    """A worker process that ended before its work was done."""

    exit_status = 4


class StreamError(VolspikeError):
    """A request that Kafka refuses."""

    exit_status = 4


class BrokerUnavailable(StreamError):
    """No broker answers at ``servers``."""

    def __init__(self, servers: str, reason: str) -> None:
        self.servers = servers
        self.reason = reason
        super().__init__(
            f"no Kafka broker answers at {servers} ({reason}); start one, or give its address with --bootstrap-servers"
        )


class TopicMissing(StreamError):
    """A topic that the cluster does not have."""

    def __init__(self, topic: str, servers: str) -> None:
        self.topic = topic
        super().__init__(f"no topic {topic} at {servers}; create it with `volspike topics create`")


class StreamTruncated(StreamError):
    """A partition without the messages that the saved state or the offsets require."""

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        self.topic = topic
        self.partition = partition
        super().__init__(
            f"{topic}[{partition}]: {reason}; --cold-start continues with empty windows, and rows are missing there"
        )


class WorkerFenced(StreamError):
    """Another worker uses this one's name, so this one may no longer commit."""
