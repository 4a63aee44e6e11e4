"""Feature files: schema, facts in the Parquet metadata, and a writer with constant memory; feature rows in memory.

A file is written under a temporary name and renamed when complete, so a failure keeps the old file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import SchemaMismatch, UnreadableFile, UsageError
from volspike.features import CATALOGUE, ROW_COLUMNS, ROW_FLOATS, Every, ExtraFacts, FeatureRows, FeatureSet, Scope
from volspike.features.catalogue import AT_TICK, LAGGED
from volspike.features.extra import extras_in, resolve_extras
from volspike.labels import HORIZON_S
from volspike.market import Profile

KEY: Final = b"volspike_features"

LABEL_COLUMNS: Final = ("future_volatility", "volatility_spike", "tau")
LABEL_FIELDS: Final = (
    pa.field("future_volatility", pa.float64()),
    pa.field("volatility_spike", pa.int8()),
    pa.field("tau", pa.float64()),
)


class RecordingGap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gap of the recording: start and end in ns UTC, and the affected products."""

    start: int
    end: int
    products: tuple[str, ...]


class FeatureFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts of a feature file; ``extras`` are its features of other distributions.

    Labelling sets ``spike``, the text of the ``SpikeDefinition``, ``horizon_s``, and, unless τ differs from row to row,
    ``tau``, ``label_percentile`` and ``tau_from``. ``losses`` are the gaps in the ledger of the recording; labels never
    cover one.
    """

    format: int = 1
    digest: str
    windows: tuple[int, ...]
    every: Every
    profile: Profile
    scope: Scope = Scope.CORE
    leader: str | None = None
    extras: tuple[ExtraFacts, ...] = ()
    simulated: bool = False
    losses: tuple[RecordingGap, ...] = ()
    tau: float | None = None
    label_percentile: float | None = None
    tau_from: str | None = None
    spike: str | None = None
    horizon_s: int = HORIZON_S

    @property
    def feature_set(self) -> FeatureSet:
        """The feature set of the file's columns.

        Raises:
            SchemaMismatch: its extra features are not installed, or are others.
        """
        return FeatureSet(self.windows, self.scope, self.leader, resolve_extras(self.extras))


def feature_schema(feature_set: FeatureSet, labelled: bool = False) -> pa.Schema:
    """The Arrow schema of a feature file, without its facts."""
    types: dict[str, pa.DataType] = {
        "timestamp": pa.timestamp("ns", "UTC"),
        "product_id": pa.dictionary(pa.int32(), pa.string()),
        "session_id": pa.int64(),
        "is_warm": pa.bool_(),
        "is_whole": pa.bool_(),
        **dict.fromkeys((*ROW_FLOATS, *feature_set.names), pa.float64()),
    }
    fields = [pa.field(name, types[name]) for name in (*ROW_COLUMNS, *feature_set.names)]
    return pa.schema([*fields, *(LABEL_FIELDS if labelled else ())])


def with_facts(schema: pa.Schema, facts: FeatureFacts) -> pa.Schema:
    """``schema`` with ``facts`` in its metadata."""
    return schema.with_metadata({KEY: msgspec.json.encode(facts)})


def open_feature_file(path: Path) -> pq.ParquetFile:
    """The Parquet file at ``path``.

    Raises:
        UnreadableFile: it does not exist or is not a Parquet file.
    """
    if not path.is_file():
        raise UnreadableFile(path, "no such file; make one with `volspike replay --raw TAPES --out FILE --add-labels`")
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFile(path, f"not a Parquet file: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True, slots=True)
class SuppliedFacts:
    """Facts that the user states for a file whose metadata another program removed; None: not stated."""

    every: Every | None = None
    profile: Profile | None = None
    simulated: bool | None = None


NOTHING_SUPPLIED: Final = SuppliedFacts()


def facts_of(path: Path, file: pq.ParquetFile, supplied: SuppliedFacts = NOTHING_SUPPLIED) -> FeatureFacts:
    """The facts in a file's metadata; where another program removed it, ``supplied`` replaces it.

    A column ``simulated`` states the origin as well.

    Raises:
        UnreadableFile: the facts are invalid or unknown, or the columns are not those of a feature file.
        SchemaMismatch: its extra features are not installed, or are others.
    """
    schema: pa.Schema = file.schema_arrow
    facts = facts_in(path, file.metadata.metadata)
    if facts is not None:
        _check(path, schema, _feature_set(path, facts))
        _refuse_contradiction(path, facts, supplied)
        return facts
    windows = windows_in(schema.names)
    if not windows:
        raise UnreadableFile(
            path, "not a feature file: it has no column like log_return_60s; make one with `volspike replay`"
        )
    feature_set = FeatureSet.of(windows, spec_in(schema.names))
    _check(path, schema, feature_set)
    simulated = _states_simulated(file) if supplied.simulated is None else supplied.simulated
    if supplied.every is None or supplied.profile is None or simulated is None:
        unknown = {"--every": supplied.every, "--profile": supplied.profile, "--origin": simulated}
        missing = " ".join(f"{option} {_CHOICES[option]}" for option, value in unknown.items() if value is None)
        raise UnreadableFile(
            path,
            "its metadata is missing, as after saving with another program: state what it held with "
            f"`volspike label --features {path} {missing}`",
        )
    return FeatureFacts(
        digest=feature_set.digest,
        windows=feature_set.windows,
        every=supplied.every,
        profile=supplied.profile,
        scope=feature_set.scope,
        extras=tuple(extra.facts for extra in feature_set.extras),
        simulated=simulated,
    )


def facts_in(source: object, metadata: Mapping[bytes, bytes] | None) -> FeatureFacts | None:
    """The facts in the key-value metadata of a file or table that messages name ``source``; None if it has none.

    Raises:
        UnreadableFile: they cannot be read.
    """
    raw = (metadata or {}).get(KEY)
    try:
        return None if raw is None else msgspec.json.decode(raw, type=FeatureFacts)
    except msgspec.DecodeError as error:
        raise UnreadableFile(source, f"its metadata cannot be read ({error}); build it again") from error


def _feature_set(path: Path, facts: FeatureFacts) -> FeatureSet:
    """The feature set of a file; an error names the file."""
    try:
        return facts.feature_set
    except SchemaMismatch as error:
        raise SchemaMismatch(f"{path}: {error}") from error


def _refuse_contradiction(path: Path, facts: FeatureFacts, supplied: SuppliedFacts) -> None:
    for name in ("every", "profile", "simulated"):
        stated, known = getattr(supplied, name), getattr(facts, name)
        if stated is not None and stated != known:
            raise UnreadableFile(path, f"its metadata states {name} {known}, not {stated}: leave out the option")


_CHOICES: Final = {"--every": "tick|1s", "--profile": "ticker|ticker+trade|trade", "--origin": "real|simulated"}


def _states_simulated(file: pq.ParquetFile) -> bool | None:
    """Whether a column ``simulated`` is true in any row; None if the file has no such column."""
    if "simulated" not in file.schema_arrow.names:
        return None
    return any(bool(value) for value in file.read(["simulated"])["simulated"].unique().to_pylist())


def _check(path: Path, schema: pa.Schema, feature_set: FeatureSet) -> None:
    """Raises UnreadableFile if a required column is missing or has a wrong type."""
    families = FeatureSet(feature_set.windows).names
    require(path, schema.names, ("timestamp", "product_id", "price", *families))
    check_types(path, schema, feature_set)


def check_types(source: object, schema: pa.Schema, feature_set: FeatureSet) -> None:
    """Raises UnreadableFile if a column has a wrong type; ``timestamp`` must be there."""
    instants, numbers = ("timestamp",), ("price", *feature_set.names, *LABEL_COLUMNS)
    wrong = [name for name in instants if not pa.types.is_timestamp(schema.field(name).type)]
    wrong += [name for name in numbers if name in schema.names and not _is_number(schema.field(name).type)]
    if wrong:
        found = ", ".join(f"{name} is {schema.field(name).type}" for name in wrong)
        raise UnreadableFile(source, f"{found}; these columns must be timestamps and numbers: build it again")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def windows_in(names: Iterable[str]) -> tuple[int, ...]:
    """The windows in feature names.

    >>> windows_in(["price", "log_return_30s", "spread_mean_60s"])
    (30, 60)
    """
    family = re.compile(r"(?:log_return|realized_volatility|price_velocity|spread_mean|order_book_imbalance|"
                        r"trade_intensity|volume_velocity)_(\d+)s")  # fmt: skip
    added = {name for name in CATALOGUE if family.fullmatch(name)}
    return tuple(sorted({int(match[1]) for name in names if name not in added and (match := family.fullmatch(name))}))


def scope_in(names: Iterable[str]) -> Scope:
    """The widest scope whose own columns are among ``names``."""
    present = set(names)
    if LAGGED[0].name in present:
        return Scope.DEEP
    return Scope.FULL if AT_TICK[0].name in present else Scope.CORE


def spec_in(names: Iterable[str]) -> str:
    """The text of the feature set whose columns are among ``names``, as ``FeatureSet.of`` takes it."""
    present = tuple(names)
    return "+".join((scope_in(present), *extras_in(present)))


def require(path: Path, present: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises UnreadableFile with the names of all missing columns."""
    there = set(present)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise UnreadableFile(
            path, f"lacks the columns {', '.join(missing)}; a feature file is made by `volspike replay`"
        )


ROW_GROUP = 131_072
"""Rows per row group with the core features; wider sets use fewer rows, for the same memory."""

PARQUET: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["product_id"]}
"""Parquet options. Dictionary encoding of floats, which rarely repeat, would take a third of the time."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path, renamed to ``path`` if the block succeeds and removed if it raises.

    Raises:
        UsageError: the folder cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; give a file name")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def row_group(schema: pa.Schema) -> int:
    """Rows per row group for ``schema``, so that a group needs no more memory than with the core features."""
    core = len(feature_schema(FeatureSet()))
    return ROW_GROUP * core // max(core, len(schema))


CHUNK: Final = 16_384
"""The fewest rows of a chunk in memory; columns in thousands of small chunks are slow in polars."""


class FeatureTable:
    """Feature rows that are collected in memory."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.written = 0
        self._schema = feature_schema(feature_set)
        self._chunks: list[pa.Table] = []
        self._waiting: list[pa.Table] = []

    def write(self, rows: FeatureRows) -> None:
        """Appends rows."""
        self.write_table(pa.Table.from_batches([record_batch(rows, self._schema)]))

    def write_table(self, table: pa.Table) -> None:
        """Appends a table with the columns of ``record_batch``."""
        self.written += len(table)
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= CHUNK:
            self._join()

    def _join(self) -> None:
        if self._waiting:
            self._chunks.append(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []

    def take(self) -> pa.Table:
        """Removes and returns the collected rows; their arrays are not copied."""
        self._join()
        chunks, self._chunks = self._chunks or [self._schema.empty_table()], []
        return pa.concat_tables(chunks).unify_dictionaries()


class FeatureFileWriter(FeatureTable):
    """Context manager that writes feature rows to a Parquet file (zstd) in row groups, in constant memory.

    Set ``facts`` before the block ends; whether a tape is simulated is known only after it is read.
    """

    def __init__(self, path: Path, feature_set: FeatureSet) -> None:
        super().__init__(feature_set)
        self.facts: FeatureFacts | None = None
        self._writer = pq.ParquetWriter(path, self._schema, **PARQUET)
        self._group = row_group(self._schema)
        self._flushed = 0

    def write_table(self, table: pa.Table) -> None:
        """Appends a table with the columns of ``record_batch``."""
        super().write_table(table)
        if self.written - self._flushed >= self._group:
            self._flush()

    def _flush(self) -> None:
        if self.written > self._flushed:
            self._writer.write_table(self.take())
        self._flushed = self.written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # the first error is already propagating
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            return
        self._flush()
        if self.facts is not None:
            self._writer.add_key_value_metadata({KEY: msgspec.json.encode(self.facts)})
        self._writer.close()


def record_batch(rows: FeatureRows, schema: pa.Schema) -> pa.RecordBatch:
    """Feature rows as an Arrow record batch with the columns of ``schema``."""
    columns: dict[str, pa.Array] = {
        "timestamp": pa.array(rows.timestamp).view(pa.timestamp("ns", "UTC")),
        "product_id": pa.DictionaryArray.from_arrays(pa.array(rows.product), pa.array(rows.products, pa.string())),
        "session_id": pa.array(rows.session_id),
        "is_warm": pa.array(rows.is_warm),
        "is_whole": pa.array(rows.is_whole),
    }
    by_column = np.ascontiguousarray(rows.values.T)
    columns.update((name, pa.array(by_column[index])) for index, name in enumerate(rows.column_names))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
