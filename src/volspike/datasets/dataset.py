"""Warm, labelled rows of a feature file as arrays, and the comparison of two feature files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets.feature_file import LABEL_COLUMNS, FeatureFacts, facts_of, open_feature_file
from volspike.errors import NotEnoughData, SchemaMismatch, UnreadableFile
from volspike.features import ROW_FLOATS
from volspike.labels import HORIZON_S, TAU, TRAILING_HOUR, SpikeDefinition, SpikeKind, jump_threshold

PERSISTENCE = f"realized_volatility_{HORIZON_S}s"
SESSION_GAP_NS = 300 * 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """n rows in time order; each is warm and its future volatility is known.

    Attributes:
        time: (n,) ns UTC.
        product: (n,) index into ``products``.
        session: (n,) the Unix second in which the row's session began.
        names: the feature columns, in the order of ``x``.
        x: (n, f) features; NaN where the feed has no value.
        future_volatility: (n,) standard deviation (ddof 0) of the one-second log returns of the horizon.
        tau: (n,) the threshold τ of each row; NaN where the file has none.
        persistence: (n,) that of the last 60, the persistence baseline; NaN without a 60 s window.
    """

    facts: FeatureFacts
    products: tuple[str, ...]
    time: NDArray[np.int64]
    product: NDArray[np.int32]
    session: NDArray[np.int64]
    names: tuple[str, ...]
    x: NDArray[np.float64]
    future_volatility: NDArray[np.float64]
    tau: NDArray[np.float64]
    persistence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    def columns(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(n, k) the named features, in the order named."""
        return np.ascontiguousarray(self.x[:, [self.names.index(name) for name in names]])

    def inputs(
        self, names: Sequence[str], tau: NDArray[np.float64], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """(rows, names) the values of these columns, where the name ``TAU`` is ``tau`` (n,); by default of all rows."""
        wanted = np.arange(len(self)) if rows is None else rows
        columns = np.array([self.names.index(name) for name in names if name != TAU], np.intp)
        values: NDArray[np.float64] = self.x[np.ix_(wanted, columns)]
        return np.insert(values, names.index(TAU), tau[wanted], axis=1) if TAU in names else values

    def only(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask."""
        names = ("time", "product", "session", "x", "future_volatility", "tau", "persistence")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def is_calm(self, tau: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) whether the last minute's volatility is not known to have reached ``tau`` (n,)."""
        return ~(self.persistence >= tau)

    def thresholds(self, spike: SpikeDefinition, percentile: float | None = None) -> NDArray[np.float64]:
        """(n,) τ of each row; NaN where it is unknown. ``percentile`` is the value that the percentile had in training.

        Raises:
            SchemaMismatch: the rows lack what τ is derived from.
        """
        if spike.kind is SpikeKind.FIXED:
            return np.full(len(self), spike.value)
        if spike.kind is SpikeKind.PERCENTILE and percentile is not None:
            return np.full(len(self), percentile)
        if spike.kind is SpikeKind.JUMP and TRAILING_HOUR in self.names:
            return jump_threshold(self.x[:, self.names.index(TRAILING_HOUR)], spike.value)
        if str(spike) == self.facts.spike:
            return self.tau
        raise SchemaMismatch(
            f"the rows do not have the threshold of spike definition {spike}",
            remedy=f"label them with `volspike label --features FILE --spike {spike}`",
        )


def load_dataset(path: Path, labelled: bool = True) -> Dataset:
    """Loads the warm, labelled rows of a feature file; with ``labelled`` false all warm rows.

    Raises:
        UnreadableFile: ``path`` is not a feature file, or has no labels.
        NotEnoughData: no row is warm and labelled.
    """
    file = open_feature_file(path)
    facts = facts_of(path, file)
    # files of an earlier version lack the features that were added to their set since
    names = tuple(name for name in facts.feature_set.names if name in file.schema_arrow.names)
    has_labels = "future_volatility" in file.schema_arrow.names
    if labelled and not has_labels:
        raise UnreadableFile(path, "has no labels; add them with `volspike label --features FILE`")
    mark = _mark(facts, file.schema_arrow.names)
    table = file.read([name for name in (*_ROW_FACTS, mark) if name in file.schema_arrow.names])
    kept = _kept(table, mark, labelled)
    usable = table.filter(kept)
    if usable.num_rows == 0:
        raise NotEnoughData(f"{path}: {_too_short(table.num_rows, labelled)}")
    return _as_arrays(facts, usable, names, lambda order: _read_features(file, names, kept, order))[0]


def dataset_of(table: pa.Table, facts: FeatureFacts, labelled: bool = True) -> tuple[Dataset, NDArray[np.intp]]:
    """The same rows of a table in memory, and for each of them its row in the table.

    Raises:
        NotEnoughData: no row is warm and labelled.
    """
    names = tuple(name for name in facts.feature_set.names if name in table.column_names)
    kept = _kept(table, _mark(facts, table.column_names), labelled)
    rows = np.flatnonzero(np.asarray(kept))
    if len(rows) == 0:
        raise NotEnoughData(f"the frame: {_too_short(table.num_rows, labelled)}")

    def features(order: NDArray[np.intp]) -> NDArray[np.float64]:
        x = np.empty((len(order), len(names)))
        for column, name in enumerate(names):
            x[:, column] = numbers(table, name)[rows[order]]
        return x

    row_facts = table.select([name for name in _ROW_FACTS if name in table.column_names]).filter(kept)
    dataset, order = _as_arrays(facts, row_facts, names, features)
    return dataset, rows[order]


_ROW_FACTS: Final = ("timestamp", "product_id", "session_id", "future_volatility", "tau")


def _mark(facts: FeatureFacts, names: Sequence[str]) -> str:
    """The column that shows whether a row is warm."""
    return "is_warm" if "is_warm" in names else f"log_return_{facts.feature_set.longest_window}s"


def _kept(table: pa.Table, mark: str, labelled: bool) -> pa.ChunkedArray:
    """A mask of the rows that are warm and, with ``labelled``, have a known future."""
    kept = pc.fill_null(table["is_warm"] if mark == "is_warm" else pc.is_finite(table[mark]), False)
    if labelled:
        kept = pc.and_(kept, pc.fill_null(pc.is_finite(table["future_volatility"]), False))
    return kept


def _too_short(rows: int, labelled: bool) -> str:
    known = " and has a known future" if labelled else ""
    return f"none of its {rows:,} rows is warm{known}: a session must last over six minutes; record for longer"


COLUMNS_AT_ONCE: Final = 16
"""Features read at a time: the rows of a long file are held once, not once more as a table."""


def _read_features(
    file: pq.ParquetFile, names: tuple[str, ...], kept: pa.ChunkedArray, order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(n, features) the ``kept`` rows in this order."""
    x = np.empty((len(order), len(names)))
    for first in range(0, len(names), COLUMNS_AT_ONCE):
        part = file.read(list(names[first : first + COLUMNS_AT_ONCE])).filter(kept)
        for column, name in enumerate(names[first : first + COLUMNS_AT_ONCE], first):
            x[:, column] = numbers(part, name)[order]
    return x


def _as_arrays(
    facts: FeatureFacts,
    table: pa.Table,
    names: tuple[str, ...],
    read_features: Callable[[NDArray[np.intp]], NDArray[np.float64]],
) -> tuple[Dataset, NDArray[np.intp]]:
    """The dataset of the rows of ``table`` in time order, and that order."""
    time = numbers(table, "timestamp").astype(np.int64)
    products, code = _products(table)
    order = np.lexsort((code, time))
    product = code[order]
    x = read_features(order)
    session = (
        numbers(table, "session_id").astype(np.int64)[order]
        if "session_id" in table.column_names
        else _sessions(time[order], product)
    )
    persistence = x[:, names.index(PERSISTENCE)] if PERSISTENCE in names else np.full(len(order), np.nan)
    missing = np.full(len(order), np.nan)
    volatility = numbers(table, "future_volatility")[order] if "future_volatility" in table.column_names else missing
    tau = numbers(table, "tau")[order] if "tau" in table.column_names else missing
    return Dataset(facts, products, time[order], product, session, names, x, volatility, tau, persistence), order


def _products(table: pa.Table) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The products by name in alphabetical order, and each row's index into them."""
    encoded = table["product_id"].combine_chunks()
    encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    products = tuple(sorted(names))
    return products, np.array([products.index(name) for name in names], np.int32)[np.asarray(encoded.indices)]


def numbers(table: pa.Table, name: str) -> NDArray[Any]:
    """A column as a NumPy array; null floats become NaN, timestamps nanoseconds UTC."""
    column = table[name]
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()))
    if pa.types.is_floating(column.type):
        column = pc.fill_null(column, float("nan"))
    return np.asarray(column)


def _sessions(time: NDArray[np.int64], product: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sessions for a file without ``session_id``: a product's silence over 300 s starts a new one."""
    session = np.empty(len(time), np.int64)
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        begins = np.diff(time[rows], prepend=time[rows[0]] - SESSION_GAP_NS - 1) > SESSION_GAP_NS
        session[rows] = (time[rows][begins] // 1_000_000_000)[np.cumsum(begins) - 1]
    return session


@dataclass(frozen=True, slots=True)
class FileComparison:
    """Rows in both files (matched by product, instant and occurrence), and the columns in which they differ."""

    common: int
    only_first: int
    only_second: int
    differing: dict[str, tuple[int, float]]
    """column → (rows that are not equal bit for bit, largest absolute difference)"""

    @property
    def is_equal(self) -> bool:
        """Whether both files have the same rows and values."""
        return not (self.only_first or self.only_second or self.differing)


def compare(first: Path, second: Path, labels: bool = False) -> FileComparison:
    """Compares features, and with ``labels`` also the labels, row by row.

    Raises:
        SchemaMismatch: the feature sets or the row rates differ.
        UnreadableFile: a file is not a feature file.
    """
    tables = []
    digests = []
    rates = []
    for path in (first, second):
        with open_feature_file(path) as file:
            facts = facts_of(path, file)
            digests.append(facts.digest)
            rates.append(facts.every)
            tables.append(file.read())
    if digests[0] != digests[1]:
        raise SchemaMismatch(
            f"{first} has feature digest {digests[0]}, {second} has {digests[1]}",
            remedy="compare files with the same feature set",
        )
    if rates[0] != rates[1]:
        raise SchemaMismatch(
            f"{first} has a row every {rates[0]}, {second} has one every {rates[1]}",
            remedy="compare files with the same row rate",
        )
    names = [*ROW_FLOATS, *facts.feature_set.names, *(LABEL_COLUMNS if labels else ())]
    shared = [name for name in names if all(name in table.column_names for table in tables)]
    rows = [_number_rows(table) for table in tables]
    common = sorted(rows[0].keys() & rows[1].keys())
    picks = [np.array([keyed[key] for key in common], np.intp) for keyed in rows]
    differing = {}
    for name in shared:
        a, b = (numbers(table, name)[pick] for table, pick in zip(tables, picks, strict=True))
        count, largest = _difference(a.astype(np.float64), b.astype(np.float64))
        if count:
            differing[name] = (count, largest)
    return FileComparison(len(common), len(rows[0]) - len(common), len(rows[1]) - len(common), differing)


def _number_rows(table: pa.Table) -> dict[tuple[str, int, int], int]:
    """Row indices by product, instant and number of earlier rows with both."""
    seen: dict[tuple[str, int], int] = {}
    keyed = {}
    time = numbers(table, "timestamp").tolist()
    for row, key in enumerate(zip(table["product_id"].to_pylist(), time, strict=True)):
        seen[key] = seen.get(key, -1) + 1
        keyed[(*key, seen[key])] = row
    return keyed


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[int, float]:
    unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not unequal.any():
        return 0, 0.0
    gap = np.abs(a[unequal] - b[unequal])
    return int(unequal.sum()), float(np.max(gap[np.isfinite(gap)], initial=0.0))
