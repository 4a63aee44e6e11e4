"""The rows to learn from: of a feature file, or of the newest recordings, replayed and labelled; thinned out, so that
weeks of ticks take no more memory than a model learns from."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import build_features, label_file, row_second
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import PARQUET, facts_of, open_feature_file, replacing, row_group
from volspike.errors import UsageError
from volspike.features import Every
from volspike.market import SECOND_NS, Profile
from volspike.models import Metadata
from volspike.tape import Ledger, TapeReport, read_ticks, tapes_of
from volspike.tape.names import read_tape_name


def recent_tapes(folder: Path, days: float) -> list[Path]:
    """The tapes of a folder that began in the ``days`` before its newest one; a tape of another name is taken too.

    Raises:
        UsageError: the folder holds no tape.
    """
    if not folder.exists():
        raise UsageError(f"no recordings in {folder}: record with `volspike up`, or name a file with --features")
    tapes = tapes_of(folder)
    begun = {tape: name.started for tape in tapes if (name := read_tape_name(tape)) is not None}
    oldest = max(begun.values(), default=0) - round(days * 86_400) * SECOND_NS
    return [tape for tape in tapes if begun.get(tape, oldest) >= oldest]


def is_simulated(tapes: list[Path]) -> bool:
    """Whether the newest tape is of a simulated market, by its first ticks."""
    report = TapeReport()
    for _ in read_ticks([tapes[-1]], report=report, set_aside=False):
        break
    return report.simulated


def replayed(tapes: list[Path], like: Metadata, folder: Path, most_rows: int) -> Path:
    """A labelled feature file of ``tapes`` in ``folder``, of the kind of rows that a model understands.

    Raises:
        DataError: the tapes cannot be read, or are too short for a label.
    """
    raw, thin = folder / "replayed.parquet", folder / "features.parquet"
    gaps = [gap for place in sorted({tape.parent for tape in tapes}) for gap in Ledger.read(place)]
    build_features(tapes, raw, like.feature_set, Every(like.every), Profile(like.profile), gaps)
    label_file(raw, raw)
    thinned(raw, thin, most_rows)
    raw.unlink()
    return thin


def thinned(source: Path, out: Path, most_rows: int) -> int:
    """Copies the last row of each second and product, of every k-th second where there are more than ``most_rows``.

    Labels were made before, from every second. Returns k.
    """
    with open_feature_file(source) as file:
        every = facts_of(source, file).every
        kept = sum(int(np.count_nonzero(mask)) for _, mask in _last_of_seconds(file, every, ["timestamp"], 1))
        step = max(1, ceil(kept / most_rows))
        with replacing(out) as part, pq.ParquetWriter(part, file.schema_arrow, **PARQUET) as writer:
            for table, mask in _last_of_seconds(file, every, file.schema_arrow.names, step):
                writer.write_table(table.filter(pa.array(mask)))
    return step


def _last_of_seconds(
    file: pq.ParquetFile, every: Every, columns: list[str], step: int
) -> Iterator[tuple[pa.Table, NDArray[np.bool_]]]:
    """Each batch with a mask of the rows to keep; a second that a batch cuts in two may be kept twice."""
    needed = list(dict.fromkeys([*columns, "timestamp", "product_id"]))
    for batch in file.iter_batches(row_group(file.schema_arrow), columns=needed):
        table = pa.Table.from_batches([batch])
        second = row_second(numbers(table, "timestamp").astype(np.int64), every)
        encoded = table["product_id"].combine_chunks()
        encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
        product = np.asarray(encoded.indices)
        order = np.lexsort((np.arange(len(second)), second, product))
        is_last = np.append((np.diff(second[order]) != 0) | (np.diff(product[order]) != 0), True)
        mask = np.zeros(len(second), np.bool_)
        mask[order[is_last]] = True
        yield table, mask & (second % step == 0)


def rows_of(path: Path, folder: Path, most_rows: int) -> Dataset:
    """The labelled rows of a feature file, thinned out where there are too many.

    Raises:
        UnreadableFile: no feature file, or one without labels.
        NotEnoughData: none of its rows is warm and labelled.
    """
    with open_feature_file(path) as file:
        is_small = file.metadata.num_rows <= most_rows
    if is_small:
        return load_dataset(path)
    thinned(path, folder / "thinned.parquet", most_rows)
    return load_dataset(folder / "thinned.parquet")
