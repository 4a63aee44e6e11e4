"""Feature files are written beside their name and renamed when whole, so that a failure leaves the old one standing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volspike.datasets.facts import KEY, FeatureFacts, feature_schema
from volspike.errors import UsageError
from volspike.features import FeatureRows, FeatureSet

ROW_GROUP = 131_072
"""Rows that are written at once with the core features; of a wider set fewer, so that it takes no more memory."""

PARQUET: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["product_id"]}
"""How feature files are written. Dictionaries of floats that hardly repeat would cost a third of the time."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes ``path`` when the block ends well and goes when it does not.

    Raises:
        UsageError: the folder cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def row_group(schema: pa.Schema) -> int:
    """How many rows are written together: of wide rows fewer, so that a group takes no more memory than the core's."""
    core = len(feature_schema(FeatureSet()))
    return ROW_GROUP * core // max(core, len(schema))


class FeatureFileWriter:
    """Writes feature rows to a Parquet file (zstd) as they come, in constant memory; a context manager.

    Set ``facts`` before the block ends: what a tape is, simulated or not, is known for sure when it was read.
    """

    def __init__(self, path: Path, feature_set: FeatureSet) -> None:
        self.facts: FeatureFacts | None = None
        self._schema = feature_schema(feature_set)
        self._writer = pq.ParquetWriter(path, self._schema, **PARQUET)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._group = row_group(self._schema)
        self.written = 0

    def write(self, rows: FeatureRows) -> None:
        """Takes the next rows; they reach the disk a row group at a time."""
        self._waiting.append(record_batch(rows, self._schema))
        self._rows += len(rows)
        self.written += len(rows)
        if self._rows >= self._group:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Takes the next rows as columns of ``record_batch``."""
        self._waiting.extend(table.to_batches())
        self._rows += len(table)
        self.written += len(table)
        if self._rows >= self._group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema).unify_dictionaries())
        self._waiting, self._rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what cannot be written any more is not told a second time
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            return
        self._flush()
        if self.facts is not None:
            self._writer.add_key_value_metadata({KEY: msgspec.json.encode(self.facts)})
        self._writer.close()


def record_batch(rows: FeatureRows, schema: pa.Schema) -> pa.RecordBatch:
    """Rows as Arrow columns in the order of a feature file."""
    columns: dict[str, pa.Array] = {
        "timestamp": pa.array(rows.timestamp).view(pa.timestamp("ns", "UTC")),
        "product_id": pa.DictionaryArray.from_arrays(pa.array(rows.product), pa.array(rows.products, pa.string())),
        "session_id": pa.array(rows.session_id),
        "is_warm": pa.array(rows.is_warm),
        "is_whole": pa.array(rows.is_whole),
    }
    by_column = np.ascontiguousarray(rows.values.T)
    columns.update((name, pa.array(by_column[index])) for index, name in enumerate(rows.column_names))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
