"""Ticks as one Parquet tape, the compact form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.market import Kind, Side, Ticks
from volspike.tape.merge import rechunked
from volspike.tape.schema import INSTANTS, TAPE_SCHEMA, WORDS, tape_metadata

ROW_GROUP = 131_072

_KIND_WORDS = {int(kind): kind.name.lower() for kind in Kind}
_SIDE_WORDS = {int(Side.BUY): "buy", int(Side.SELL): "sell"}


class ParquetTape:
    """A Parquet tape being written: under ``<name>.part`` until it is closed cleanly, so that nothing is half there.

    ``simulated`` and ``metadata``, what else it says of itself, may be set until the end.
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self.path = Path(path)
        self.simulated = simulated
        self.metadata: dict[bytes, bytes] = {}
        self.ticks = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer = pq.ParquetWriter(
            self._part, TAPE_SCHEMA, compression="zstd", use_dictionary=list(WORDS), write_statistics=list(INSTANTS)
        )

    def write(self, ticks: Ticks) -> None:
        """Writes one row group (or several, of ``ROW_GROUP`` rows each)."""
        self._writer.write_table(_table(ticks), row_group_size=ROW_GROUP)
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
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_parquet(parts: Iterable[Ticks], path: Path, *, simulated: bool = False) -> int:
    """Writes chunks of ticks as one Parquet tape; the number of ticks. An existing file stays whole if it fails."""
    with ParquetTape(path, simulated=simulated) as tape:
        for part in rechunked(parts, ROW_GROUP):
            tape.write(part)
    return tape.ticks


def _table(ticks: Ticks) -> pa.Table:
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
    """The codes as words; a code without a word is null."""
    indices = np.full(len(codes), -1, np.int32)
    for index, code in enumerate(words):
        indices[codes == code] = index
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=indices < 0), pa.array(list(words.values()), pa.string())
    )
