"""Consolidation: each row once, one kind of file, and the parts that are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from volspike.datasets import load_dataset
from volspike.datasets.build import build_features
from volspike.datasets.consolidate import consolidate, write_parts
from volspike.errors import SchemaMismatch, UsageError
from volspike.features import Every, FeatureSet
from volspike.market import Ticks
from volspike.tape import read_ticks, write_parquet

SET = FeatureSet((30, 60, 120))


def test_overlapping_files_give_each_row_once(tape: Path, tmp_path: Path) -> None:
    """Two replays that overlap give the rows of one replay of the complete tape; the warm row is kept."""
    ticks = Ticks.join(list(read_ticks([tape])))
    files = []
    for name, part in (("early", ticks[: len(ticks) * 2 // 3]), ("late", ticks[len(ticks) // 3 :])):
        piece, out = tmp_path / f"{name}_tape.parquet", tmp_path / f"features_{name}.parquet"
        write_parquet([part], piece)
        build_features([piece], out, SET, Every.TICK)
        files.append(out)
    complete, merged = tmp_path / "complete.parquet", tmp_path / "merged.parquet"
    build_features([tape], complete, SET, Every.TICK)
    result = consolidate(files, merged)
    assert result.read - result.duplicates == pq.read_metadata(complete).num_rows == result.labels.rows
    a, b = pq.read_table(complete), pq.read_table(merged)
    assert sorted(a["timestamp"].cast(pa.int64()).to_pylist()) == b["timestamp"].cast(pa.int64()).to_pylist()
    # rows in both files are warm in the early file; the cold first minutes of the late file are dropped
    assert sum(b["is_warm"].to_pylist()) == sum(a["is_warm"].to_pylist())


def test_the_same_file_twice_is_the_file(features: Path, tmp_path: Path) -> None:
    """Consolidating a file with its copy changes nothing."""
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(features.read_bytes())
    result = consolidate([features, copy], tmp_path / "merged.parquet")
    assert result.duplicates == pq.read_metadata(features).num_rows
    merged = load_dataset(tmp_path / "merged.parquet")
    assert np.array_equal(load_dataset(features).x, merged.x, equal_nan=True)


def test_files_of_different_kinds_are_not_mixed(features: Path, tape: Path, tmp_path: Path) -> None:
    """Rows per tick and per second, or of other windows, are refused together, and nothing is written."""
    other = tmp_path / "other.parquet"
    build_features([tape], other, SET, Every.TICK)
    with pytest.raises(SchemaMismatch):
        consolidate([features, other], tmp_path / "merged.parquet")
    assert not (tmp_path / "merged.parquet").exists()


@pytest.mark.parametrize("method", ["time_based", "walk_forward", "stratified"])
def test_parts_are_files_that_load(features: Path, tmp_path: Path, method: str) -> None:
    """The three parts are feature files of their own, disjoint, with the facts of the consolidated file."""
    merged = tmp_path / "features_consolidated.parquet"
    consolidate([features], merged)
    part, written = write_parts(merged, method)
    names = [path.name for path in written.values()]
    assert names == [f"features_consolidated_{ending}.parquet" for ending in ("train", "val", "test")]
    sizes = [len(load_dataset(path)) for path in written.values()]
    assert sizes == [len(part.train), len(part.validation), len(part.test)]


def test_nothing_to_consolidate_is_a_usage_error(tmp_path: Path) -> None:
    """Consolidation without files is a usage error."""
    with pytest.raises(UsageError):
        consolidate([], tmp_path / "merged.parquet")
