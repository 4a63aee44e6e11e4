"""Part files → one feature file, in time order, in memory of a row group per partition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

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
    facts_of,
    feature_schema,
    open_feature_file,
    replacing,
    with_facts,
)
from volspike.errors import NotEnoughData, SchemaMismatch, UnreadableFile
from volspike.locks import take
from volspike.streams.sink import Part, parts_folder, parts_in

BATCH_ROWS: Final = 32_768
LOOK_EVERY_S: Final = 0.1


@dataclass(slots=True)
class Merged:
    """What became of the parts: ``elsewhere`` are offsets whose rows lie in no part here, by partition."""

    parts: int = 0
    rows: int = 0
    facts: FeatureFacts | None = None
    labels: LabelResult | None = None
    unlabelled: str = ""
    """Why there are no labels although they were asked for."""
    elsewhere: list[tuple[int, int, int]] = field(default_factory=list)


def merge_parts(file: Path, percentile: float | None = None, gap_s: float = 300.0) -> Merged:
    """Writes the rows of all committed parts to ``file``; the parts stay, for the stream goes on.

    With a ``percentile`` rows get labels as ``label_file`` gives them: null until a minute has passed. Workers that
    end at the same time do this one after the other, so that the last one has all parts.

    Raises:
        UnreadableFile: parts overlap, or one is damaged.
        SchemaMismatch: they are not of one kind.
    """
    folder = parts_folder(file)
    merged = Merged()
    if not folder.is_dir():
        return merged
    with (folder / ".lock").open("w") as lock:
        while not take(lock.fileno()):
            time.sleep(LOOK_EVERY_S)
        parts = [part for part in parts_in(folder) if part.is_committed]
        merged.parts, merged.elsewhere = len(parts), _gaps(parts)
        if parts:
            merged.facts = _common([_facts(part) for part in parts])
            with replacing(file) as target:
                merged.rows = _write(target, parts, merged.facts)
                if percentile is not None:
                    _label(target, merged, percentile, gap_s)
    return merged


def _label(target: Path, merged: Merged, percentile: float, gap_s: float) -> None:
    try:
        merged.labels = label_file(target, target, percentile, gap_s)
    except NotEnoughData as error:
        merged.unlabelled = str(error)


def _gaps(parts: Sequence[Part]) -> list[tuple[int, int, int]]:
    """Offsets between neighbouring parts, which another machine has written.

    Raises:
        UnreadableFile: two parts hold the same offsets.
    """
    gaps = []
    for one, following in pairwise(parts):
        if (one.log, one.partition) == (following.log, following.partition):
            if following.start < one.end:
                raise UnreadableFile(following.path, f"holds rows that {one.path.name} holds, too: remove one run's")
            if following.start > one.end:
                gaps.append((one.partition, one.end, following.start))
    if len({part.log for part in parts}) > 1:
        raise UnreadableFile(parts[0].path.parent, "holds parts of several groups or topics: remove all but one's")
    return gaps


def _facts(part: Part) -> FeatureFacts:
    with open_feature_file(part.path) as file:
        return facts_of(part.path, file)


def _common(all_facts: Sequence[FeatureFacts]) -> FeatureFacts:
    kinds = {msgspec.structs.replace(facts, simulated=False) for facts in all_facts}
    if len(kinds) > 1:
        raise SchemaMismatch("parts are of several feature sets, row rates or profiles", remedy="remove the old ones")
    return msgspec.structs.replace(kinds.pop(), simulated=any(facts.simulated for facts in all_facts))


def _write(target: Path, parts: Sequence[Part], facts: FeatureFacts) -> int:
    schema = with_facts(feature_schema(facts.feature_set), facts)
    streams = [_Rows(list(own)) for _, own in groupby(parts, key=lambda part: part.partition)]
    waiting: list[pa.Table] = []
    held = written = 0
    with pq.ParquetWriter(target, schema, **PARQUET) as writer:
        for table in _in_order([stream for stream in streams if stream.advance()]):
            waiting.append(table)
            held += table.num_rows
            written += table.num_rows
            if held >= ROW_GROUP:
                writer.write_table(_one(waiting, schema))
                waiting, held = [], 0
        if waiting:
            writer.write_table(_one(waiting, schema))
    return written


def _one(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().cast(schema)


class _Rows:
    """The rows of a partition's parts, a batch at a time.

    ``keys`` is the latest timestamp up to each row: it never steps back, so that the partition's order stays.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._batches = self._read(parts)
        self._reached = np.iinfo(np.int64).min
        self.table = pa.table({})
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)

    @staticmethod
    def _read(parts: Sequence[Part]) -> Iterator[pa.Table]:
        for part in parts:
            with open_feature_file(part.path) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    yield pa.Table.from_batches([batch]).replace_schema_metadata()

    def advance(self) -> bool:
        """Takes the next batch; False where there is none."""
        for table in self._batches:
            if table.num_rows:
                self.table = table
                times = numbers(table, "timestamp").astype(np.int64)
                self.keys = np.maximum(np.maximum.accumulate(times), self._reached)
                self._reached = int(self.keys[-1])
                return True
        return False

    def taken(self, until: int) -> tuple[pa.Table, NDArray[np.int64]]:
        """Removes and returns the rows at hand up to ``until``."""
        cut = int(np.searchsorted(self.keys, until, side="right"))
        taken = self.table.slice(0, cut), self.keys[:cut]
        self.table, self.keys = self.table.slice(cut), self.keys[cut:]
        return taken


def _in_order(streams: list[_Rows]) -> Iterator[pa.Table]:
    while streams:
        until = min(int(stream.keys[-1]) for stream in streams)
        taken = [stream.taken(until) for stream in streams]
        order = np.argsort(np.concatenate([keys for _, keys in taken]), kind="stable")
        yield pa.concat_tables([table for table, _ in taken]).unify_dictionaries().take(pa.array(order))
        streams = [stream for stream in streams if len(stream.keys) or stream.advance()]
