"""Feature rows of a stream as Parquet part files that end where a commit does, merged into one file on request.

A part holds the rows between two snapshots of a partition. It is written under a hidden name before the second
snapshot is committed, and renamed afterwards. The next owner of the partition starts at the newest snapshot and makes
the rows since then again, so parts are contiguous: no row is missing, none is duplicated.

    features.parquet.parts/featurizer@ticks.raw-0-00000000000000000000-00000000000000100000.parquet

PartFile files → one feature file, in time order, in memory of a row group per partition.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets.build import LabelResult, label_file
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import (
    PARQUET,
    ROW_GROUP,
    FeatureFacts,
    FeatureFileWriter,
    facts_of,
    feature_schema,
    open_feature_file,
    with_facts,
    write_atomically,
)
from volspike.errors import NotEnoughData, SchemaMismatch, UnreadableFile, UsageError
from volspike.features import Every, FeatureRows, FeatureSet
from volspike.labels import SpikeDefinition, SpikeKind
from volspike.locks import sync_to_disk, try_lock
from volspike.market import Profile

FOLDER_ENDING: Final = ".parts"
_SHAPE: Final = re.compile(
    r"(?P<log>.+)-(?P<partition>\d+)-(?P<start>\d{20})-(?P<end>\d{20})(?P<hidden>\.\S+)?\.parquet"
)


@dataclass(frozen=True, slots=True, order=True)
class PartFile:
    """A part file: the rows with offsets from ``start`` to before ``end`` of a partition."""

    log: str
    partition: int
    start: int
    end: int
    path: Path
    is_committed: bool = True


def parts_folder(file: Path) -> Path:
    """The folder of the parts of a feature file."""
    return file.with_name(file.name + FOLDER_ENDING)


def list_parts(folder: Path) -> list[PartFile]:
    """All part files by log, partition and offset, including hidden ones."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _SHAPE.fullmatch(path.name.removeprefix("."))
        if match is not None:
            place = int(match["partition"]), int(match["start"]), int(match["end"])
            found.append(PartFile(match["log"], *place, path, is_committed=not path.name.startswith(".")))
    return sorted(found)


class PartitionParts:
    """The parts of one partition; the methods correspond to those of the stage whose rows it keeps.

    ``log`` names group and topic. Rows are kept in memory between two snapshots.
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
        """Starts at ``offset``, after renaming or deleting the parts that a failure left hidden.

        Raises:
            UsageError: a part reaches beyond ``offset`` and so belongs to another run.
        """
        self._start = offset
        committed = {offset, *earlier}
        for part in list_parts(self._folder):
            if (part.log, part.partition) != (self._log, self._partition):
                continue
            if part.is_committed:
                self._refuse_beyond(part, offset)
            elif part.end in committed:
                self._rename(part.path, self._path(part.start, part.end))
            elif not earlier or part.end > min(earlier):  # whether older parts were committed is no longer known
                part.path.unlink(missing_ok=True)

    def _refuse_beyond(self, part: PartFile, offset: int) -> None:
        if part.end > offset:
            raise UsageError(
                f"{part.path} holds rows up to offset {part.end:,}, but the group is at {offset:,} of the topic: "
                "the parts belong to another run; remove them, or name another --output-file"
            )

    def add(self, rows: FeatureRows, *, simulated: bool) -> None:
        """Adds the next rows."""
        self._rows.append(rows)
        self._simulated |= simulated

    def prepare(self, offset: int) -> None:
        """Writes a part under a hidden name and flushes it to disk."""
        final = self._path(self._start, offset)
        hidden = final.with_name(f".{final.stem}.{os.getpid()}-{time.monotonic_ns()}.parquet")
        self._folder.mkdir(parents=True, exist_ok=True)
        with FeatureFileWriter(hidden, self._facts.feature_set) as writer:
            writer.facts = msgspec.structs.replace(self._facts, simulated=self._simulated)
            for rows in self._rows:
                writer.write(rows)
        with suppress(FileNotFoundError):  # a new owner of the partition has removed it: our commit will fail
            sync_to_disk(hidden)
        self._hidden = hidden, final
        self._start = offset
        self._rows = []

    def publish(self) -> None:
        """Renames the hidden part."""
        if self._hidden is not None:
            self._rename(*self._hidden)
            self._hidden = None

    def _rename(self, hidden: Path, final: Path) -> None:
        try:
            hidden.replace(final)
        except FileNotFoundError:
            if not final.exists():  # otherwise the new owner has renamed it
                raise
        sync_to_disk(self._folder)

    def close(self) -> None:
        """Discards the rows in memory.

        A written part stays hidden: only the next restore knows whether it was committed.
        """
        self._rows = []

    def _path(self, start: int, end: int) -> Path:
        return self._folder / f"{self._log}-{self._partition}-{start:020d}-{end:020d}.parquet"


def parquet_sink(file: Path, group: str, topic: str, facts: FeatureFacts) -> Callable[[int], PartitionParts]:
    """Returns a function that creates the sink of a partition."""
    log = quote(f"{group}@{topic}", safe="@")  # group names allow characters that file names do not
    return lambda partition: PartitionParts(parts_folder(file), log, partition, facts)


def facts_for(feature_set: FeatureSet, every: Every, profile: Profile) -> FeatureFacts:
    """The facts of a stream's feature file; whether its market is simulated follows from the rows."""
    return FeatureFacts(
        digest=feature_set.digest,
        windows=feature_set.windows,
        scope=feature_set.scope,
        leader=feature_set.leader,
        extras=tuple(extra.facts for extra in feature_set.extras),
        every=every,
        profile=profile,
    )


BATCH_ROWS: Final = 32_768
LOOK_EVERY_S: Final = 0.1


@dataclass(slots=True)
class MergeResult:
    """The result of a merge; ``elsewhere`` lists (partition, start, end) of offsets without rows in this folder."""

    parts: int = 0
    rows: int = 0
    facts: FeatureFacts | None = None
    labels: LabelResult | None = None
    unlabelled: str = ""
    """Why requested labels are missing."""
    elsewhere: list[tuple[int, int, int]] = field(default_factory=list)


def merge_parts(file: Path, percentile: float | None = None, gap_s: float = 300.0) -> MergeResult:
    """Writes the rows of all committed parts to ``file``; the parts stay, since the stream continues.

    With a ``percentile``, rows are labelled by ``label_file``: null until the horizon has passed. Workers that end at
    the same time merge one after the other, so that the last one has all parts.

    Raises:
        UnreadableFile: parts overlap, or one is damaged.
        SchemaMismatch: parts have different feature sets, row rates or profiles.
    """
    folder = parts_folder(file)
    merged = MergeResult()
    if not folder.is_dir():
        return merged
    with (folder / ".lock").open("wb") as lock:
        while not try_lock(lock.fileno()):
            time.sleep(LOOK_EVERY_S)
        parts = [part for part in list_parts(folder) if part.is_committed]
        merged.parts, merged.elsewhere = len(parts), _gaps(parts)
        if parts:
            merged.facts = _common([_facts(part) for part in parts])
            with write_atomically(file) as target:
                merged.rows = _write(target, parts, merged.facts)
                if percentile is not None:
                    _label(target, merged, percentile, gap_s)
    return merged


def _label(target: Path, merged: MergeResult, percentile: float, gap_s: float) -> None:
    try:
        spike = SpikeDefinition(SpikeKind.PERCENTILE, percentile)
        merged.labels = label_file(target, target, spike, gap_s)
    except NotEnoughData as error:
        merged.unlabelled = str(error)


def _gaps(parts: Sequence[PartFile]) -> list[tuple[int, int, int]]:
    """Offsets missing between neighbouring parts, whose rows another machine has written.

    Raises:
        UnreadableFile: two parts hold the same offsets.
    """
    gaps = []
    for one, following in pairwise(parts):
        if (one.log, one.partition) == (following.log, following.partition):
            if following.start < one.end:
                raise UnreadableFile(following.path, f"overlaps {one.path.name}: remove the parts of one run")
            if following.start > one.end:
                gaps.append((one.partition, one.end, following.start))
    if len({part.log for part in parts}) > 1:
        raise UnreadableFile(parts[0].path.parent, "has parts of several groups or topics: keep those of one")
    return gaps


def _facts(part: PartFile) -> FeatureFacts:
    with open_feature_file(part.path) as file:
        return facts_of(part.path, file)


def _common(all_facts: Sequence[FeatureFacts]) -> FeatureFacts:
    kinds = {msgspec.structs.replace(facts, simulated=False) for facts in all_facts}
    if len(kinds) > 1:
        raise SchemaMismatch("parts have different feature sets, row rates or profiles", remedy="remove the old ones")
    return msgspec.structs.replace(kinds.pop(), simulated=any(facts.simulated for facts in all_facts))


def _write(target: Path, parts: Sequence[PartFile], facts: FeatureFacts) -> int:
    schema = with_facts(feature_schema(facts.feature_set), facts)
    streams = [_Rows(list(own)) for _, own in groupby(parts, key=lambda part: part.partition)]
    waiting: list[pa.Table] = []
    buffered = written = 0
    with pq.ParquetWriter(target, schema, **PARQUET) as writer:
        for table in _in_order([stream for stream in streams if stream.advance()]):
            waiting.append(table)
            buffered += table.num_rows
            written += table.num_rows
            if buffered >= ROW_GROUP:
                writer.write_table(_concat(waiting, schema))
                waiting, buffered = [], 0
        if waiting:
            writer.write_table(_concat(waiting, schema))
    return written


def _concat(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().cast(schema)


class _Rows:
    """The rows of a partition's parts, a batch at a time.

    ``keys`` is the latest timestamp up to each row; it never decreases, so the order within the partition is kept.
    """

    def __init__(self, parts: Sequence[PartFile]) -> None:
        self._batches = self._read(parts)
        self._reached = np.iinfo(np.int64).min
        self.table = pa.table({})
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)

    @staticmethod
    def _read(parts: Sequence[PartFile]) -> Iterator[pa.Table]:
        for part in parts:
            with open_feature_file(part.path) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    yield pa.Table.from_batches([batch]).replace_schema_metadata()

    def advance(self) -> bool:
        """Loads the next batch; False if there is none."""
        for table in self._batches:
            if table.num_rows:
                self.table = table
                times = numbers(table, "timestamp").astype(np.int64)
                self.keys = np.maximum(np.maximum.accumulate(times), self._reached)
                self._reached = int(self.keys[-1])
                return True
        return False

    def take_until(self, until: int) -> tuple[pa.Table, NDArray[np.int64]]:
        """Removes and returns the loaded rows up to ``until``."""
        cut = int(np.searchsorted(self.keys, until, side="right"))
        taken = self.table.slice(0, cut), self.keys[:cut]
        self.table, self.keys = self.table.slice(cut), self.keys[cut:]
        return taken


def _in_order(streams: list[_Rows]) -> Iterator[pa.Table]:
    while streams:
        until = min(int(stream.keys[-1]) for stream in streams)
        taken = [stream.take_until(until) for stream in streams]
        order = np.argsort(np.concatenate([keys for _, keys in taken]), kind="stable")
        yield pa.concat_tables([table for table, _ in taken]).unify_dictionaries().take(pa.array(order))
        streams = [stream for stream in streams if len(stream.keys) or stream.advance()]
