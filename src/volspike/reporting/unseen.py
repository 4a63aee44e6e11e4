"""Which rows of a feature file a model has never learned from, nor any choice of its training looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.datasets.splits import FIRST_PRICE_NS
from volspike.errors import DataError
from volspike.market import SECOND_NS, nanoseconds
from volspike.models import Metadata
from volspike.reporting.figures import day_and_time


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Row numbers, ascending, and a sentence on which they are."""

    rows: NDArray[np.int64]
    told: str


def unseen_rows(features: Path, dataset: Dataset, metadata: Metadata) -> Unseen:
    """The final block of the model's training and every later row, if this is the file that it was trained on.

    Training purged and embargoed what lies before the final block. Of any other file, and of a model whose training
    drew its rows at random or does not tell the block, only those rows count that begin to look back after the last
    instant of its data.

    Raises:
        DataError: the file has as many rows as the model's, and another number of them in the final block.
    """
    facts = metadata.data
    start, end = nanoseconds(facts.start), nanoseconds(facts.end)
    is_same = _count(dataset, start, end) == facts.rows
    if metadata.split.method == "stratified":
        return _newer(dataset, metadata, end, "its training drew rows at random, so that")
    if not is_same or not facts.test_start:
        why = "this is another file than it was trained on" if not is_same else "it does not tell its final block"
        return _newer(dataset, metadata, end, f"{why}, so that")
    first, last = nanoseconds(facts.test_start), nanoseconds(facts.test_end)
    found = _count(dataset, first, last)
    if found != facts.test_rows:
        raise DataError(
            f"{features} has {found:,} rows from {facts.test_start} to {facts.test_end}, {metadata.model} was judged "
            f"on {facts.test_rows:,} there: it is not the file that it was trained on; train anew, or name that file"
        )
    rows = np.flatnonzero(dataset.time >= first)
    newer = len(rows) - found
    later = f", and {newer:,} rows after it" if newer else ""
    return Unseen(rows, f"the final block of its training, {found:,} rows from {day_and_time(facts.test_start)}{later}")


def _count(dataset: Dataset, first: int, last: int) -> int:
    return int(np.count_nonzero((dataset.time >= first) & (dataset.time <= last)))


def _newer(dataset: Dataset, metadata: Metadata, end: int, why: str) -> Unseen:
    """Rows that look back to after ``end``; a session's windows start anew."""
    embargo_s = metadata.split.embargo_s or dataset.facts.feature_set.longest_window
    look = np.maximum(dataset.time - embargo_s * SECOND_NS - FIRST_PRICE_NS, dataset.session * SECOND_NS)
    rows = np.flatnonzero(look > end)
    told = f"{why} only {len(rows):,} rows count, which look back to after {day_and_time(metadata.data.end)}"
    return Unseen(rows, told)
