"""Two feature files held against each other: does replay give what was live?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volspike.datasets.dataset import numbers
from volspike.datasets.facts import LABEL_COLUMNS, facts_of, open_feature_file
from volspike.errors import SchemaMismatch
from volspike.features import ROW_FLOATS


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows that both files have (the n-th of a product at an instant), and the columns in which they differ."""

    common: int
    only_first: int
    only_second: int
    differing: dict[str, tuple[int, float]]
    """column → (rows that are not equal bit for bit, largest absolute difference)"""

    @property
    def is_equal(self) -> bool:
        """Whether both files tell the same."""
        return not (self.only_first or self.only_second or self.differing)


def compare(first: Path, second: Path, labels: bool = False) -> Comparison:
    """Compares features (and with ``labels`` those too) row by row.

    Raises:
        SchemaMismatch: the files are of different feature sets.
        UnreadableFile: one is no feature file.
    """
    tables = []
    digests = []
    for path in (first, second):
        with open_feature_file(path) as file:
            facts = facts_of(path, file)
            digests.append(facts.digest)
            tables.append(file.read())
    if digests[0] != digests[1]:
        raise SchemaMismatch(
            f"{first} has feature digest {digests[0]}, {second} has {digests[1]}", remedy="compare files of one set"
        )
    names = [*ROW_FLOATS, *facts.feature_set.names, *(LABEL_COLUMNS if labels else ())]
    shared = [name for name in names if all(name in table.column_names for table in tables)]
    rows = [_keyed(table) for table in tables]
    common = sorted(rows[0].keys() & rows[1].keys())
    picks = [np.array([keyed[key] for key in common], np.intp) for keyed in rows]
    differing = {}
    for name in shared:
        a, b = (numbers(table, name)[pick] for table, pick in zip(tables, picks, strict=True))
        count, largest = _difference(a.astype(np.float64), b.astype(np.float64))
        if count:
            differing[name] = (count, largest)
    return Comparison(len(common), len(rows[0]) - len(common), len(rows[1]) - len(common), differing)


def _keyed(table: pa.Table) -> dict[tuple[str, int, int], int]:
    """Row number by product, instant, and how many such rows stand before."""
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
