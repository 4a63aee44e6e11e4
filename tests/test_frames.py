"""Frames as tables and back, and the facts of feature rows in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from volspike.errors import UnreadableFile, UsageError
from volspike.features import Every
from volspike.frames import as_given, as_table, feature_rows
from volspike.market import SECOND_NS

VALUES = np.arange(1.0, 101.0)


@pytest.mark.parametrize("frame", [pa.table({"x": VALUES}), pl.DataFrame({"x": VALUES}), pd.DataFrame({"x": VALUES})])
def test_numbers_of_frames_are_views(frame: Any) -> None:
    """A column of floats without missing values is the same memory in each kind of frame."""
    column = frame["x"]
    own = column.chunk(0).to_numpy() if isinstance(frame, pa.Table) else column.to_numpy()
    assert np.shares_memory(as_table(frame)["x"].chunk(0).to_numpy(), own)


def test_polars_takes_over_the_memory_of_results() -> None:
    """Chunk by chunk; also those of a table in several chunks."""
    table = pa.concat_tables([pa.table({"x": VALUES}), pa.table({"x": VALUES + 1.0})])
    frame = as_given(table, pl.DataFrame())
    assert frame["x"].n_chunks() == 2
    for chunk, own in zip(frame["x"].get_chunks(), table["x"].chunks, strict=True):
        assert np.shares_memory(chunk.to_numpy(), own.to_numpy())


def test_an_index_of_pandas_is_a_column_if_it_has_a_name() -> None:
    """A named index is data; numbers that pandas counts rows with are not."""
    frame = pd.DataFrame({"x": VALUES, "time": pd.date_range("2026-01-01", periods=100, freq="s")})
    assert as_table(frame[frame["x"] > 10.0]).column_names == ["x", "time"]
    assert as_table(frame.set_index("time")).column_names == ["x", "time"]
    aligned = as_given(as_table(frame.set_index("time")), frame.set_index("time"), is_aligned=True)
    pd.testing.assert_frame_equal(aligned, frame.set_index("time"), check_freq=False)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ([1, 2], "expected a tape or a polars, pandas or Arrow frame, got list"),
        (pl.Series([1.0]), "the frame (Series) cannot be read: "),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the frame (DataFrame) cannot be read: Expected unique column"),
    ],
)
def test_other_objects_are_refused(frame: Any, text: str) -> None:
    """By their type, or with what is wrong about them."""
    with pytest.raises(UsageError) as caught:
        as_table(frame)
    assert str(caught.value).startswith(text)


def rows(**columns: Any) -> pa.Table:
    """Rows of features, one per second, with some of the columns replaced; a column that is None is left out."""
    time = pa.array(np.arange(100) * SECOND_NS).view(pa.timestamp("ns", "UTC"))
    usual = {"timestamp": time, "product_id": ["A-B"] * 100, "price": VALUES, "is_warm": [True] * 100}
    found = usual | {"log_return_60s": VALUES} | columns
    return pa.table({name: column for name, column in found.items() if column is not None})


def test_the_facts_of_rows_are_seen_in_their_columns() -> None:
    """The row rate in the times, the windows in the names, a simulated market in its column."""
    _, facts = feature_rows(rows(simulated=[True] * 100), None, ())
    assert (facts.every, facts.windows, facts.simulated) == (Every.SECOND, (60,), True)
    assert feature_rows(rows(), Every.TICK, ())[1].every is Every.TICK


@pytest.mark.parametrize(
    ("columns", "error", "text"),
    [
        ({"price": None, "is_warm": None}, UsageError, "the frame lacks price, is_warm, so it holds no feature rows"),
        ({"price": [None, *VALUES[1:]]}, UnreadableFile, "the frame: 1 rows have no price: drop them"),
        ({"price": ["1"] * 100}, UnreadableFile, "the frame: price is string; these columns must be"),
        ({"timestamp": VALUES}, UnreadableFile, "the frame: timestamp is double; these columns must be"),
    ],
)
def test_wrong_rows_are_refused(columns: dict[str, Any], error: type[Exception], text: str) -> None:
    """The message names the column."""
    with pytest.raises(error) as caught:
        feature_rows(rows(**columns), None, ())
    assert str(caught.value).startswith(text)


def test_damaged_facts_are_refused() -> None:
    """Metadata that cannot be decoded is one clear line."""
    with pytest.raises(UnreadableFile, match="the frame: its metadata cannot be read"):
        feature_rows(rows().replace_schema_metadata({b"volspike_features": b"{"}), None, ())
