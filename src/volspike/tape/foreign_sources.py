"""The files to import: what is in them, and their format by the content."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import UnreadableFile, UsageError
from volspike.tape.blocks import OpenedStream, TextStream, open_text
from volspike.tape.file_formats import (
    BITCOINCHARTS,
    CCXT,
    CSV,
    FORMATS,
    KRAKEN,
    NAUTILUS,
    FileFormat,
    FileOrigin,
    holds_ticks,
    market_of_header,
    market_venue,
    origin_of,
    product_of_symbol,
)
from volspike.tape.importers import csv_head, layout_of_rows
from volspike.tape.table import METADATA_KEY

_HEAD_BYTES: Final = 1 << 16
_ZIP: Final = b"PK\x03\x04"
_EMPTY_ZIP: Final = b"PK\x05\x06"
_TEXT_ENDINGS: Final = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """One table to import: a file, or a ``member`` of a zip archive; ``size`` is that of what is read, in bytes."""

    path: Path
    size: int
    member: str = ""

    @property
    def label(self) -> Path:
        """The name in messages."""
        return self.path / self.member if self.member else self.path

    @property
    def name(self) -> Path:
        """The name that may state product and venue."""
        return self.path.parent / Path(self.member).name if self.member else self.path


def sources_of_file(path: Path) -> list[ForeignSource]:
    """The tables in a file: its text members if it is a zip archive, otherwise the file.

    The name of an archive with one member counts, as that is the name that exchanges document.

    Raises:
        UnreadableFile: the file cannot be opened, or is an archive without a text file.
    """
    head = read_head(path)
    if not head.startswith((_ZIP, _EMPTY_ZIP)):
        return [ForeignSource(path, path.stat().st_size)]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if _is_text_member(info.filename)]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UnreadableFile(path, f"the zip archive cannot be read ({error}): download it again") from error
    if not members:
        raise UnreadableFile(path, f"the zip archive holds no file with the ending {', '.join(_TEXT_ENDINGS)}")
    return [ForeignSource(path, info.file_size, info.filename) for info in members]


def _is_text_member(name: str) -> bool:
    return name.lower().endswith(_TEXT_ENDINGS) and not name.startswith("__MACOSX/") and not name.endswith("/")


def read_head(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        UnreadableFile: it is a folder, or cannot be opened.
    """
    if path.is_dir():
        raise UnreadableFile(path, "is a folder: name its files, such as folder/*.csv.gz")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error


@contextmanager
def opened(source: ForeignSource) -> Iterator[TextStream]:
    """The text of a source, uncompressed.

    Raises:
        UnreadableFile: it is encrypted, compressed in an unknown way, or damaged at its beginning.
    """
    if not source.member:
        stream = open_text(source.path)
        try:
            yield stream
        finally:
            stream.close()
        return
    try:
        with zipfile.ZipFile(source.path) as archive, archive.open(source.member) as file:
            yield OpenedStream(cast("BinaryIO", file))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise UnreadableFile(source.label, f"the zip archive cannot be read ({error})") from error


def text_head(source: ForeignSource) -> bytes:
    """The first 64 KiB of the text, fewer if it is shorter; ends with a line end if there is one."""
    with opened(source) as stream:
        parts: list[bytes] = []
        size = 0
        while size < _HEAD_BYTES and (data := stream.read(_HEAD_BYTES - size)):
            parts.append(data)
            size += len(data)
        if not parts and stream.fault is not None:
            raise UnreadableFile(source.label, stream.fault)
    text = b"".join(parts).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return text[: text.rfind(b"\n") + 1] if size >= _HEAD_BYTES and b"\n" in text else text


@dataclass(frozen=True, slots=True)
class Recognition:
    """The format of a file, and the market, venue and symbol that its columns and its name show."""

    file_format: FileFormat
    is_parquet: bool = False
    market: str = ""
    origin: FileOrigin = field(default_factory=FileOrigin)

    @property
    def product_id(self) -> str | None:
        """The product that the name of the file states, or None."""
        symbol = self.origin.symbol
        venue = market_venue(self.file_format, symbol, self.market) or self.origin.venue
        return product_of_symbol(venue, symbol) if symbol and venue else None


def recognize(source: ForeignSource, name: str = "auto", *, has_columns: bool = False) -> Recognition:
    """The format of a file; ``name`` is a format, or ``auto`` to find it by the content.

    Raises:
        UnreadableFile: no format or several fit; the message names the candidates and the option.
        UsageError: there is no format of that name.
    """
    if name != "auto" and name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; choose one of auto, {', '.join(FORMATS)}")
    stated = CSV if has_columns and name == "auto" else FORMATS.get(name)
    origin = origin_of(source.name)
    if not source.member and read_head(source.path).startswith(b"PAR1"):
        return Recognition(stated or _parquet_format(source.path), is_parquet=True, origin=origin)
    head = text_head(source)
    start = head.lstrip()
    if not start:
        raise UnreadableFile(source.label, "the file is empty")
    if start[:1] in b"[{":
        if stated not in {None, CCXT}:
            raise UnreadableFile(source.label, f"holds JSON, which is no file of {name}; use --format ccxt")
        _refuse_tape(source, start)
        return Recognition(CCXT, origin=origin)
    _refuse_binary(source, start)
    table = csv_head(head)
    header = table.rows[0] if table.rows else []
    if stated is not None:
        return Recognition(stated, market=_market(stated, table.rows), origin=origin)
    found = [file_format for file_format in FORMATS.values() if file_format.is_signed(header)]
    if not found and holds_ticks(CSV.fields_of(header)):
        found = [CSV]
    if not found:
        found = [file_format for file_format in FORMATS.values() if layout_of_rows(file_format, table.rows)]
    if {KRAKEN, BITCOINCHARTS} == set(found):  # the same columns; the names of the files differ
        by_name = _by_name(source.name, origin)
        found = found if by_name is None else [by_name]
    if len(found) == 1:
        return Recognition(found[0], market=_market(found[0], table.rows), origin=origin)
    shown = ", ".join(value[:30] for value in header[:20])
    if found:
        names = " and ".join(file_format.name for file_format in found)
        raise UnreadableFile(
            source.label, f"its columns fit {names}; choose one with --format, and the product with --product"
        )
    raise UnreadableFile(
        source.label,
        f"no known format; its first line is {shown!r}: choose one of {', '.join(FORMATS)} with --format, or name the "
        "columns with --columns time=…,price=…",
    )


def _market(file_format: FileFormat, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    if holds_ticks(file_format.fields_of(rows[0])):
        return market_of_header(file_format, rows[0])
    layout = layout_of_rows(file_format, rows)
    return "" if layout is None else layout.market


def _by_name(name: Path, origin: FileOrigin) -> FileFormat | None:
    """Kraken's files are named XBTUSD.csv, those of bitcoincharts krakenUSD.csv."""
    if re.fullmatch(r"[A-Z0-9]{5,12}", name.name.partition(".")[0]) or name.parent.name.lower() == "kraken":
        return KRAKEN
    return BITCOINCHARTS if origin.venue and origin.symbol.startswith("BTC-") else None


def _refuse_binary(source: ForeignSource, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile(source.label, "is text in UTF-16: save it as UTF-8")
    if sum(byte < 9 or 13 < byte < 32 for byte in start[:512]) > 2:  # a damaged row may hold one
        raise UnreadableFile(source.label, "is no text: name a CSV, JSON or Parquet file, or a zip archive of them")


def _refuse_tape(source: ForeignSource, start: bytes) -> None:
    line = start.partition(b"\n")[0]
    if line[:1] == b"{" and (b'"raw"' in line or b'"product_id"' in line) and b'"info"' not in line:
        raise UnreadableFile(source.label, "is a tape already: volspike reads it directly with --raw")


def _parquet_format(path: Path) -> FileFormat:
    schema, metadata = parquet_schema(path)
    if METADATA_KEY in metadata:
        raise UnreadableFile(path, "is a tape already: volspike reads it directly with --raw")
    names = list(schema.names)
    if NAUTILUS.is_signed(names):
        return NAUTILUS
    found = [file_format for file_format in FORMATS.values() if file_format.is_signed(names)]
    if found:
        return found[0]
    if holds_ticks(CSV.fields_of(names)):
        return CSV
    raise UnreadableFile(
        path, f"no known format; its columns are {', '.join(names[:20])}: name them with --columns time=…,price=…"
    )


def parquet_schema(path: Path) -> tuple[pa.Schema, Mapping[bytes, bytes]]:
    """The columns and the key-value metadata of a Parquet file.

    Raises:
        UnreadableFile: it is no Parquet file.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            return file.schema_arrow, file.metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, f"cannot be read as Parquet ({str(error).partition(chr(10))[0]})") from error
