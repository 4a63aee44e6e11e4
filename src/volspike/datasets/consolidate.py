"""Consolidation of feature files without duplicate rows, and files of training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets.build import PERCENTILE, LabelResult, label_file
from volspike.datasets.dataset import load_dataset, numbers
from volspike.datasets.feature_file import (
    NOTHING_SUPPLIED,
    PARQUET,
    FeatureFacts,
    SuppliedFacts,
    facts_of,
    feature_schema,
    open_feature_file,
    require,
    with_facts,
    write_atomically,
)
from volspike.datasets.splits import Split, newest_fold, split
from volspike.errors import SchemaMismatch, UsageError
from volspike.features import ROW_COLUMNS
from volspike.labels import HORIZON_S, SpikeDefinition
from volspike.progress import OnStep, Step, part

PART_ENDINGS = {"train": "_train", "validation": "_val", "test": "_test"}


@dataclass(frozen=True, slots=True)
class ConsolidateResult:
    """Rows read, duplicate rows dropped, and the labels of the other rows."""

    files: tuple[Path, ...]
    read: int
    duplicates: int
    labels: LabelResult


def consolidate(
    files: Sequence[Path],
    out: Path,
    spike: SpikeDefinition = PERCENTILE,
    gap_s: float = 300,
    horizon: int = HORIZON_S,
    on_step: OnStep = lambda _: None,
    supplied: SuppliedFacts = NOTHING_SUPPLIED,
) -> ConsolidateResult:
    """Merges feature files into ``out``, in time order and without duplicates, and labels the result.

    Equal rows are duplicates. The n-th row of a product at an instant is the same row in every file; of these, the
    first warm row is kept, else the first row. ``supplied`` replaces metadata that is missing.

    Raises:
        UsageError: ``files`` is empty.
        SchemaMismatch: the files differ in feature set, row rate, profile or origin (real or simulated).
        UnreadableFile, NotEnoughData: see ``label_file``.
    """
    if not files:
        raise UsageError("no feature files to consolidate; make some with `volspike replay`")
    facts, tables = _read(files, part(on_step, 0.0, 0.3), supplied)
    merged = pa.concat_tables(tables, promote_options="none")
    source = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    on_step(Step(f"{merged.num_rows:,} rows: finding duplicates", 0.3))
    kept = _rows_without_duplicates(merged, source)
    on_step(Step(f"writing {len(kept):,} rows", 0.5))
    with write_atomically(out) as target:
        metadata = with_facts(merged.schema, facts).metadata
        pq.write_table(merged.take(kept).replace_schema_metadata(metadata), target, **PARQUET)
        labels = label_file(target, target, spike, gap_s, horizon, part(on_step, 0.6, 1.0, "labels: "))
    return ConsolidateResult(tuple(files), merged.num_rows, merged.num_rows - len(kept), labels)


def _read(files: Sequence[Path], on_step: OnStep, supplied: SuppliedFacts) -> tuple[FeatureFacts, list[pa.Table]]:
    """Reads the rows without labels in one schema; rejects files of different kinds."""
    all_facts: list[FeatureFacts] = []
    tables = []
    for number, path in enumerate(files):
        on_step(Step(f"reading {path.name}", number / len(files)))
        with open_feature_file(path) as file:
            facts = facts_of(path, file, supplied)
            all_facts.append(facts)
            mine, theirs = (
                (one.digest, one.windows, one.every, one.profile, one.simulated) for one in (facts, all_facts[0])
            )
            if mine != theirs:
                raise SchemaMismatch(
                    f"{path} (digest, windows, every, profile, simulated) {mine} differs from {files[0]} {theirs}",
                    remedy="consolidate files with equal values only",
                )
            require(path, file.schema_arrow.names, (*ROW_COLUMNS, *facts.feature_set.names))
            schema = feature_schema(facts.feature_set)
            table = file.read(schema.names).cast(schema)
            tables.append(table.replace_schema_metadata(None))
    losses = dict.fromkeys(loss for facts in all_facts for loss in facts.losses)
    return msgspec.structs.replace(all_facts[0], losses=tuple(losses)), tables


def _rows_without_duplicates(table: pa.Table, source: NDArray[np.intp]) -> NDArray[np.intp]:
    """The indices of the rows to keep, in time order."""
    time = numbers(table, "timestamp").astype(np.int64)
    product = np.asarray(table["product_id"].unify_dictionaries().combine_chunks().indices)
    order = np.lexsort((np.arange(len(time)), source, product, time))
    kept = order[~_repeats(table, order)]
    occurrence = _occurrence(time[kept], product[kept], source[kept])
    cold = ~np.asarray(table["is_warm"])[kept]
    best = np.lexsort((source[kept], cold, occurrence, product[kept], time[kept]))
    keys = np.stack([time[kept], product[kept], occurrence])[:, best]
    first = np.append(True, (np.diff(keys) != 0).any(axis=0)) if len(best) else np.empty(0, bool)
    chosen: NDArray[np.intp] = kept[np.sort(best[first])]
    return chosen


def _repeats(table: pa.Table, order: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether a row equals the one before it (in ``order``) in every column; NaN equals NaN."""
    same = np.ones(len(order), bool)
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            values = np.asarray(column.unify_dictionaries().combine_chunks().indices)[order]
        else:
            values = numbers(table, name)[order]
        equal = values[1:] == values[:-1]
        if np.issubdtype(values.dtype, np.floating):
            equal |= np.isnan(values[1:]) & np.isnan(values[:-1])
        same[1:] &= equal
    same[:1] = False
    return same


def _occurrence(time: NDArray[np.int64], product: NDArray[np.int32], source: NDArray[np.intp]) -> NDArray[np.int64]:
    """Numbers the rows of a file with equal product and instant from 0; rows must be sorted."""
    keys = np.stack([time, product, source])
    begins = np.append(True, (np.diff(keys) != 0).any(axis=0)) if len(time) else np.empty(0, bool)
    starts = np.flatnonzero(begins)
    return np.arange(len(time)) - np.repeat(starts, np.diff(np.append(starts, len(time))))


def write_parts(file: Path, method: str) -> tuple[Split, dict[str, Path]]:
    """Writes the warm, labelled rows of each part of a split to files ending in ``_train``, ``_val`` and ``_test``.

    ``walk_forward`` writes its newest fold.
    """
    dataset = load_dataset(file)
    fold = newest_fold(split(dataset, method))
    table = pq.read_table(file)
    usable = table.filter(pc.and_(table["is_warm"], pc.is_finite(table["future_volatility"])))
    usable = usable.take(np.argsort(numbers(usable, "timestamp"), kind="stable"))
    written = {}
    for name, ending in PART_ENDINGS.items():
        path = file.with_name(f"{file.stem}{ending}{file.suffix}")
        with write_atomically(path) as part:
            pq.write_table(usable.take(getattr(fold, name)), part, **PARQUET)
        written[name] = path
    return fold, written
