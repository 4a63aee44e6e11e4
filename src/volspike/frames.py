"""Frames of polars, pandas and Arrow as tables and back, and the facts of the feature rows in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from narwhals.exceptions import NarwhalsError

from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import (
    FeatureFacts,
    RecordingGap,
    check_types,
    facts_in,
    spec_in,
    windows_in,
)
from volspike.errors import UnreadableFile, UsageError
from volspike.features import Every, FeatureSet, profile_of
from volspike.market import SECOND_NS, Gap, Kind

Frame: TypeAlias = Any
"""A polars or pandas data frame, an Arrow table, or an object with the Arrow C stream interface."""

NAME = "the frame"
"""How messages name a frame."""

_UNNAMED_INDEX = "__index_level_"


def as_table(frame: Frame) -> pa.Table:
    """Any frame as an Arrow table; numbers, times and flags are views where the frame holds them as Arrow does.

    A named index of pandas becomes a column, an unnamed one is left out.

    Raises:
        UsageError: the object is no frame.
    """
    if isinstance(frame, pa.Table):
        return frame
    try:
        native = nw.from_native(frame, pass_through=True)
        if native is not frame:
            table: pa.Table = (native.collect() if isinstance(native, nw.LazyFrame) else native).to_arrow()
            return table.drop_columns([name for name in table.column_names if name.startswith(_UNNAMED_INDEX)])
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
    except (pa.ArrowException, NarwhalsError, ValueError) as error:
        raise UsageError(f"{NAME} ({type(frame).__name__}) cannot be read: {' '.join(str(error).split())}") from error
    raise UsageError(f"expected a tape or a polars, pandas or Arrow frame, got {type(frame).__name__}")


def as_given(table: pa.Table, like: Frame, *, is_aligned: bool = False) -> Frame:
    """The table as the kind of frame that was given; Arrow for other objects.

    polars takes over the memory, pandas copies it. With ``is_aligned`` each row is that of ``like`` at its place, and
    a frame of pandas has its index.
    """
    if isinstance(like, pa.Table):
        return table
    native = nw.from_native(like, pass_through=True)
    if native is like or (isinstance(native, nw.LazyFrame) and not native.implementation.is_polars()):
        return table
    table, backend = table.replace_schema_metadata(None), native.implementation
    if backend.is_polars():
        return nw.get_native_namespace(native).from_arrow(table, rechunk=False)
    if not backend.is_pandas():
        return nw.from_arrow(table, backend=backend).to_native()
    if not is_aligned:
        return table.to_pandas()
    index: Any = nw.maybe_get_index(native)
    return table.drop_columns([name for name in table.column_names if name in index.names]).to_pandas().set_index(index)


def feature_rows(frame: Frame, every: Every | None, gaps: Iterable[Gap]) -> tuple[pa.Table, FeatureFacts]:
    """Feature rows as a table, and their facts with ``gaps`` added to the losses of the recording.

    Raises:
        UsageError: the frame has no feature rows, or its row rate is unknown.
        UnreadableFile: a column has a wrong type or null values, or the metadata of a table cannot be read.
    """
    table = as_table(frame)
    losses = tuple(RecordingGap(gap.start, gap.end, gap.products) for gap in gaps)
    facts = facts_in(NAME, table.schema.metadata)
    lacking = [name for name in ("timestamp", "product_id", "price", "is_warm") if name not in table.column_names]
    if lacking:
        missing = ", ".join(lacking)
        raise UsageError(f"{NAME} lacks {missing}, so it holds no feature rows: call vs.features(frame) first")
    for name in ("timestamp", "product_id", "price"):
        if table[name].null_count:
            raise UnreadableFile(NAME, f"{table[name].null_count:,} rows have no {name}: drop them")
    if facts is None:
        facts = _seen_facts(table, every)
    elif every is not None and facts.every is not every:
        raise UsageError(f"the rows were made with every={facts.every!s}, not {every}: leave out every=")
    check_types(NAME, table.schema, facts.feature_set)
    return table, msgspec.structs.replace(facts, losses=facts.losses + losses)


def _seen_facts(table: pa.Table, every: Every | None) -> FeatureFacts:
    """The facts of rows whose metadata polars or pandas dropped, as far as their columns show them."""
    chosen = FeatureSet.of(windows_in(table.column_names), spec_in(table.column_names))
    check_types(NAME, table.schema, chosen)
    is_quoted = "best_bid" in table.column_names and bool(pc.any(pc.is_finite(table["best_bid"])).as_py())
    return FeatureFacts(
        digest=chosen.digest,
        windows=chosen.windows,
        every=_rate_of(table) if every is None else every,
        profile=profile_of({Kind.TICKER if is_quoted else Kind.TRADE}),
        scope=chosen.scope,
        extras=tuple(extra.facts for extra in chosen.extras),
        simulated="simulated" in table.column_names,
    )


def _rate_of(table: pa.Table) -> Every:
    """The row rate that the times of rows show.

    Raises:
        UsageError: the times have no fractions of a second, as ticks may, and seconds are missing between them.
    """
    time = numbers(table, "timestamp")
    if np.any(time % SECOND_NS):
        return Every.TICK
    product = np.asarray(table["product_id"].combine_chunks().dictionary_encode().indices)
    order = np.lexsort((time, product))
    steps = np.diff(time[order])[np.diff(product[order]) == 0]
    session = np.asarray(table["session_id"])[order] if "session_id" in table.column_names else time[order] * 0
    within = steps[(np.diff(session) == 0)[np.diff(product[order]) == 0]]
    if len(within) and np.all(within == SECOND_NS):
        return Every.SECOND
    raise UsageError("the row rate cannot be seen in the times of the rows: state it as every='1s' or every='tick'")
