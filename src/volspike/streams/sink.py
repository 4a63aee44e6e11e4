"""Feature rows of a stream as Parquet: part files whose ends are committed with the offsets, merged on request.

A part holds the rows of the offsets between two snapshots of a partition. It is written under a hidden name before
the second snapshot is committed, and renamed after. Whoever takes the partition up, here or elsewhere, begins at the
newest snapshot and makes the rows since then once more, so that parts lie end to end: none missing, none twice.

    features.parquet.parts/featurizer@ticks.raw-0-00000000000000000000-00000000000000100000.parquet
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from volspike.datasets.feature_file import FeatureFacts, FeatureFileWriter
from volspike.errors import UsageError
from volspike.features import Every, FeatureRows, FeatureSet
from volspike.market import Profile

FOLDER_ENDING: Final = ".parts"
_SHAPE: Final = re.compile(
    r"(?P<log>.+)-(?P<partition>\d+)-(?P<start>\d{20})-(?P<end>\d{20})(?P<hidden>\.\S+)?\.parquet"
)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part file: rows of offsets ``start`` up to, and without, ``end`` of a partition."""

    log: str
    partition: int
    start: int
    end: int
    path: Path
    is_committed: bool = True


def parts_folder(file: Path) -> Path:
    """Where the parts of a feature file lie."""
    return file.with_name(file.name + FOLDER_ENDING)


def parts_in(folder: Path) -> list[Part]:
    """All part files by log, partition and offset, those under a hidden name included."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _SHAPE.fullmatch(path.name.removeprefix("."))
        if match is not None:
            place = int(match["partition"]), int(match["start"]), int(match["end"])
            found.append(Part(match["log"], *place, path, is_committed=not path.name.startswith(".")))
    return sorted(found)


class PartitionParts:
    """The parts of one partition; ``featurizer.RowSink``.

    ``log`` is the group and the topic. Rows are held in memory between two snapshots.
    """

    def __init__(self, folder: Path, log: str, partition: int, facts: FeatureFacts) -> None:
        self._folder = folder
        self._log = log
        self._partition = partition
        self._facts = facts
        self._rows: list[FeatureRows] = []
        self._simulated = False
        self._start = 0
        self._hidden: tuple[Path, Path] | None = None

    def restore(self, offset: int, earlier: Sequence[int]) -> None:
        """Begins at ``offset``; parts that a failure left between writing and renaming are settled first.

        Raises:
            UsageError: the parts reach beyond ``offset``: they are of another run.
        """
        self._start = offset
        committed = {offset, *earlier}
        for part in parts_in(self._folder):
            if (part.log, part.partition) != (self._log, self._partition):
                continue
            if part.is_committed:
                self._refuse_beyond(part, offset)
            elif part.end in committed:
                self._rename(part.path, self._path(part.start, part.end))
            elif not earlier or part.end > min(earlier):  # of what lies further back nobody knows any more
                part.path.unlink(missing_ok=True)

    def _refuse_beyond(self, part: Part, offset: int) -> None:
        if part.end > offset:
            raise UsageError(
                f"{part.path} holds rows up to offset {part.end:,}, but group and topic stand at {offset:,}: "
                "the parts are of another run; remove them, or name another --output-file"
            )

    def add(self, rows: FeatureRows, *, simulated: bool) -> None:
        """Takes the next rows."""
        self._rows.append(rows)
        self._simulated |= simulated

    def prepare(self, offset: int) -> None:
        """Writes a part under a hidden name, down to the disk."""
        final = self._path(self._start, offset)
        hidden = final.with_name(f".{final.stem}.{os.getpid()}-{time.monotonic_ns()}.parquet")
        self._folder.mkdir(parents=True, exist_ok=True)
        with FeatureFileWriter(hidden, self._facts.feature_set) as writer:
            writer.facts = msgspec.structs.replace(self._facts, simulated=self._simulated)
            for rows in self._rows:
                writer.write(rows)
        with suppress(FileNotFoundError):  # whoever has the partition by now has removed it: no commit will succeed
            _sync(hidden)
        self._hidden = hidden, final
        self._start = offset
        self._rows = []

    def publish(self) -> None:
        """Gives the part its name."""
        if self._hidden is not None:
            self._rename(*self._hidden)
            self._hidden = None

    def _rename(self, hidden: Path, final: Path) -> None:
        try:
            hidden.rename(final)
        except FileNotFoundError:
            if not final.exists():  # else whoever has the partition now was faster
                raise
        _sync(self._folder)

    def close(self) -> None:
        """Forgets the rows at hand.

        A part that was written stays hidden: whether it was committed is not known here; the next restore knows.
        """
        self._rows = []

    def _path(self, start: int, end: int) -> Path:
        return self._folder / f"{self._log}-{self._partition}-{start:020d}-{end:020d}.parquet"


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parquet_sink(file: Path, group: str, topic: str, facts: FeatureFacts) -> Callable[[int], PartitionParts]:
    """Makes the sink of a partition. The set is that of ``facts``."""
    log = quote(f"{group}@{topic}", safe="@")  # a group may be called anything, a file may not
    return lambda partition: PartitionParts(parts_folder(file), log, partition, facts)


def facts_for(feature_set: FeatureSet, every: Every, profile: Profile) -> FeatureFacts:
    """The facts of a stream's feature file, before it is known whether its market is simulated."""
    return FeatureFacts(
        digest=feature_set.digest,
        windows=feature_set.windows,
        scope=feature_set.scope,
        leader=feature_set.leader,
        every=every,
        profile=profile,
    )
