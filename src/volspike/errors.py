"""Every error that volspike raises on purpose, split by what the caller can do about it.

    VolspikeError
    ├── UsageError            the call is wrong: mend the command            exit status 2
    ├── DataError             the data is not what it should be              exit status 3
    │   ├── MalformedTick     one frame or line: set it aside and go on
    │   ├── UnreadableFile    a file that is no tape, no feature file
    │   └── NotEnoughData     too few rows, or of one class only
    ├── ModelError            the model cannot be used                       exit status 4
    │   ├── ArtifactMissing   nothing is there: train one
    │   ├── ArtifactCorrupt   the files are not what was written: train or copy anew
    │   └── SchemaMismatch    features and model do not belong together
    ├── WorkerLost            a process that shared the work ended: run it again   exit status 4
    └── StreamError           Kafka refuses what is asked of it              exit status 4
        ├── BrokerUnavailable nobody answers: try again, or name another
        ├── TopicMissing      the cluster has no such topic: make it
        ├── StreamTruncated   the log no longer has what is needed: begin anew on purpose
        └── WorkerFenced      another worker took its place: stop, or start under another name

An error's text is one line: what was, what was wanted, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class VolspikeError(Exception):
    """Root of the tree; ``exit_status`` is what the command line ends with."""

    exit_status = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Some classes are made from fields, not from the text: told across processes, they are put together again.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[VolspikeError], args: tuple[Any, ...], fields: dict[str, Any]) -> VolspikeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(VolspikeError):
    """The command or the call asks for something that does not exist or does not fit together."""

    exit_status = 2


class DataError(VolspikeError):
    """The data is not what it should be."""

    exit_status = 3


class MalformedTick(DataError):
    """One frame or tape line that cannot be read as what it claims to be.

    ``path`` locates the fault inside the message (``$.events[0].tickers[2].price``), ``reason`` names it.
    """

    def __init__(self, reason: str, path: str = "$") -> None:
        self.reason = reason
        self.path = path
        super().__init__(f"{reason} at {path}")


class UnreadableFile(DataError):
    """A file that does not hold what it should; ``file`` is its path."""

    def __init__(self, file: object, reason: str) -> None:
        self.file = str(file)
        self.reason = reason
        super().__init__(f"{file}: {reason}")


class NotEnoughData(DataError):
    """Too little to learn or to judge from."""


class ModelError(VolspikeError):
    """The model cannot be used."""

    exit_status = 4


class ArtifactMissing(ModelError):
    """There is no artifact where one was looked for."""


class ArtifactCorrupt(ModelError):
    """An artifact's files are not those that were written."""


class SchemaMismatch(ModelError):
    """Features and model do not belong together; the names that differ are fields."""

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


class WorkerLost(VolspikeError):
    """A process that shared the work ended before its work was done."""

    exit_status = 4


class StreamError(VolspikeError):
    """Kafka refuses what is asked of it."""

    exit_status = 4


class BrokerUnavailable(StreamError):
    """No broker answers where one was looked for; ``servers`` is where."""

    def __init__(self, servers: str, reason: str) -> None:
        self.servers = servers
        self.reason = reason
        super().__init__(
            f"no Kafka broker answers at {servers} ({reason}); start one, or name it with --bootstrap-servers"
        )


class TopicMissing(StreamError):
    """The cluster has no topic of this name."""

    def __init__(self, topic: str, servers: str) -> None:
        self.topic = topic
        super().__init__(f"no topic {topic} at {servers}; make it with `volspike topics create`")


class StreamTruncated(StreamError):
    """A partition no longer has the messages that state or offsets call for."""

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        self.topic = topic
        self.partition = partition
        super().__init__(
            f"{topic}[{partition}]: {reason}; "
            "with --cold-start it goes on with empty windows, and rows are missing there"
        )


class WorkerFenced(StreamError):
    """Another worker has taken this one's name, and with it the right to commit."""
