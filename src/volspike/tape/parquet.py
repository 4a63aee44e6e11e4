"""Parquet tapes, the compact form: writing, and reading; tables of trades made elsewhere are read as well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.errors import UnreadableFile
from volspike.market import Kind, Side, Ticks
from volspike.tape.chronology import TapeZone
from volspike.tape.report import NumberedTicks, RejectedLines, TapeReport
from volspike.tape.table import (
    IDS,
    INSTANTS,
    TAPE_SCHEMA,
    Layout,
    TableReading,
    TableTape,
    TapeSource,
    TickBatch,
    first_line,
    tape_metadata,
)

ROW_GROUP = 131_072

_DIFFERENCES = (*INSTANTS, *IDS)
"""Columns stored as differences of few bits, which compression makes hardly smaller.

Prices and sizes repeat, so a dictionary makes them smaller and faster to read.
"""


class ParquetTape:
    """A Parquet tape being written, as ``<name>.part`` until the block ends without an error.

    ``simulated`` and ``metadata`` (further key-value metadata) may be set until then.
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self.path = Path(path)
        self.simulated = simulated
        self.metadata: dict[bytes, bytes] = {}
        self.ticks = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer = pq.ParquetWriter(
            self._part,
            TAPE_SCHEMA,
            compression={name: "none" if name in _DIFFERENCES else "zstd" for name in TAPE_SCHEMA.names},
            use_dictionary=[name for name in TAPE_SCHEMA.names if name not in _DIFFERENCES],
            column_encoding=dict.fromkeys(_DIFFERENCES, "DELTA_BINARY_PACKED"),
            write_statistics=list(INSTANTS),
        )

    def write(self, ticks: Ticks) -> None:
        """Writes one row group (or several, of ``ROW_GROUP`` rows each)."""
        self._writer.write_table(tick_table(ticks), row_group_size=ROW_GROUP)
        self.ticks += len(ticks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._writer.add_key_value_metadata(tape_metadata(self.simulated) | self.metadata)
        self._writer.close()
        if kind is None:
            with self._part.open("r+b") as part:
                os.fsync(part.fileno())
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_parquet(parts: Iterable[Ticks], path: Path, *, simulated: bool = False) -> int:
    """Writes chunks of ticks as one Parquet tape and returns their number; if it fails, an existing file stays."""
    with ParquetTape(path, simulated=simulated) as tape:
        for part in rechunk(parts, ROW_GROUP):
            tape.write(part)
    return tape.ticks


def rechunk(parts: Iterable[Ticks], chunk: int) -> Iterator[Ticks]:
    """The same ticks in chunks of exactly ``chunk``; the last one is shorter."""
    waiting: list[Ticks] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count < chunk:
            continue
        joined = Ticks.join(waiting) if len(waiting) > 1 else part
        for start in range(0, count - chunk + 1, chunk):
            yield joined[start : start + chunk]
        count %= chunk
        waiting = [joined[len(joined) - count :]] if count else []  # joining an empty part would copy the next one
    if count:
        yield Ticks.join(waiting) if len(waiting) > 1 else waiting[0]


_KIND_WORDS = {int(kind): kind.name.lower() for kind in Kind}
_SIDE_WORDS = {int(Side.BUY): "buy", int(Side.SELL): "sell"}


def tick_table(ticks: Ticks) -> pa.Table:
    """Ticks as a table of ``TAPE_SCHEMA``; numbers and times are views."""
    arrays: dict[str, Any] = {name: pa.array(column) for name, column in ticks.columns()}
    for name in INSTANTS:
        arrays[name] = arrays[name].view(TAPE_SCHEMA.field(name).type)
    arrays["kind"] = _dictionary(ticks.kind, _KIND_WORDS)
    arrays["side"] = _dictionary(ticks.side, _SIDE_WORDS)
    arrays["product_id"] = pa.DictionaryArray.from_arrays(
        pa.array(ticks.product), pa.array(ticks.products, pa.string())
    )
    return pa.table([arrays[name] for name in TAPE_SCHEMA.names], schema=TAPE_SCHEMA)


def _dictionary(codes: NDArray[np.int8], words: Mapping[int, str]) -> pa.DictionaryArray:
    """The codes as texts; a code without a text is null."""
    places = np.full(256, -1, np.int32)
    for place, code in enumerate(words):
        places[code % 256] = place
    indices = places[codes.view(np.uint8)]
    is_null = indices < 0
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=is_null if is_null.any() else None), pa.array(list(words.values()), pa.string())
    )


def parquet_ticks(
    path: Path, report: TapeReport, rejected: RejectedLines | None = None, *, rows: int
) -> Iterator[Ticks]:
    """The ticks of one Parquet tape in the order of its rows; see ``numbered_rows``."""
    for part in numbered_rows(path, report, rejected, rows=rows):
        yield part.ticks


def numbered_rows(
    tape: TapeSource,
    report: TapeReport,
    rejected: RejectedLines | None = None,
    *,
    rows: int,
    clock: TapeZone | None = None,
    simulated: bool | None = None,
) -> Iterator[NumberedTicks]:
    """The ticks of one Parquet tape, or of a table in memory, in the order of its rows, about ``rows`` at a time.

    ``clock`` learns whether the times have a zone. Invalid rows are added to ``report`` and ``rejected`` with their
    number, from 1.

    Raises:
        UnreadableFile: it is no Parquet file, or no tape.
    """
    try:
        if isinstance(tape, TableTape):
            table = tape.table
            reading = TableReading(tape, table.schema, report, rejected, clock, simulated)
            yield from reading.ticks(tape.batches(rows, reading.columns), len(table), table.nbytes)
            return
        with pq.ParquetFile(tape, pre_buffer=False) as file:
            schema = file.schema_arrow.with_metadata(file.metadata.metadata)
            reading = TableReading(tape, schema, report, rejected, clock, simulated)
            batches = file.iter_batches(batch_size=rows, columns=reading.columns)
            yield from reading.ticks(batches, file.metadata.num_rows, tape.stat().st_size)
    except (pa.ArrowException, OSError) as error:
        form = "" if isinstance(tape, TableTape) else " as Parquet"
        raise UnreadableFile(tape, f"cannot be read{form} ({first_line(error)})") from error


def row_group_ticks(file: pq.ParquetFile, group: int) -> Ticks:
    """The ticks of one row group of a tape that volspike wrote, in its order."""
    table = file.read_row_group(group, columns=TAPE_SCHEMA.names, use_threads=False).combine_chunks()
    layout = Layout({name: name for name in TAPE_SCHEMA.names}, None, False)
    batches = table.to_batches()
    return Ticks.join([TickBatch(batch, layout).ticks() for batch in batches])
