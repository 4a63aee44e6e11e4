"""The text of an NDJSON tape, decompressed and split into blocks at line ends, in constant memory."""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, cast

import pyarrow as pa

from volspike.errors import UnreadableFile
from volspike.tape.names import is_parquet

LONGEST_LINE = 64 << 20
"""Longest line in bytes; an order book's snapshot has five million."""

_PACKED_READ = 1 << 16
_BOM = b"\xef\xbb\xbf"


class TextStream:
    """The text of an uncompressed file; ``fault`` states why it ended early, ``consumed`` the bytes read from disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.fault: str | None = None
        self.consumed = 0
        self._file = file

    def read(self, size: int) -> bytes:
        """Up to about ``size`` bytes; none at the end of the file or at the place where it is damaged."""
        data = self._file.read(size)
        self.consumed += len(data)
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class GzipStream(TextStream):
    """A gzip file of one or several members; of a damaged one, everything that can be decompressed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._member = zlib.decompressobj(wbits=31)
        self._packed = b""
        self._at_start = True

    def read(self, size: int) -> bytes:
        """About ``size`` bytes of text."""
        while self.fault is None:
            if not self._packed:
                self._packed = self._file.read(_PACKED_READ)
                self.consumed += len(self._packed)
            if not self._packed:
                if self._at_start or self._member.eof:
                    return b""
                self.fault = "the gzip stream is cut off: its last lines are missing"
                return self._member.flush()
            if text := self._decompress(size):
                return text
        return b""

    def _decompress(self, size: int) -> bytes:
        if self._member.eof:
            self._packed = self._packed.lstrip(b"\0")  # members may be padded with zeros
            self._member, self._at_start = zlib.decompressobj(wbits=31), True
        if not self._packed:
            return b""
        self._at_start = False
        try:
            text = self._member.decompress(self._packed, size)
        except zlib.error as error:
            self.fault = f"the gzip stream is broken ({error}): what follows is missing"
            return b""
        self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return text


class ZstdStream(TextStream):
    """A Zstandard file of one or several frames; of a damaged one, everything that can be decompressed."""

    def __init__(self, path: Path) -> None:
        super().__init__(pa.OSFile(str(path)))
        self._path = path
        self._delivered = 0
        self._text = pa.CompressedInputStream(self._file, "zstd")

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes of text, and 64 KiB at most."""
        if self.fault is not None:
            return b""
        try:
            data: bytes = self._text.read(min(size, _PACKED_READ))
        except OSError as error:
            cut_off = "Truncated" in str(error)
            self.fault = (
                "the Zstandard stream is cut off: its last lines are missing"
                if cut_off
                else f"the Zstandard stream is broken ({error}): what follows is missing"
            )
            data = self._read_until_fault()
        self._delivered += len(data)
        self.consumed = self._file.tell()
        return data

    def _read_until_fault(self) -> bytes:
        """The bytes before the fault, which the failed read discarded; they are read again, one by one."""
        self._file = pa.OSFile(str(self._path))
        self._text = pa.CompressedInputStream(self._file, "zstd")
        missing = self._delivered
        while missing > 0:
            missing -= len(self._text.read(min(missing, _PACKED_READ)))
        rest = bytearray()
        try:
            while byte := self._text.read(1):
                rest += byte
        except OSError:
            return bytes(rest)
        return bytes(rest)

    def close(self) -> None:
        """Closes the file."""
        self._text.close()
        super().close()


class _Decompressor(Protocol):
    """A decompressor of the standard library for one stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class PackedStream(TextStream):
    """A bzip2 or xz file of one or several streams; of a damaged one, everything that can be decompressed."""

    def __init__(self, file: BinaryIO, name: str, decompressor: Callable[[], _Decompressor]) -> None:
        super().__init__(file)
        self._name = name
        self._new_decompressor = decompressor
        self._stream = decompressor()
        self._at_start = True

    def read(self, size: int) -> bytes:
        """About ``size`` bytes of text."""
        while self.fault is None:
            packed = b""
            if self._stream.eof:
                packed, self._stream, self._at_start = self._stream.unused_data, self._new_decompressor(), True
            if not packed and self._stream.needs_input:
                packed = self._file.read(_PACKED_READ)
                self.consumed += len(packed)
                if not packed:
                    if not self._at_start:
                        self.fault = f"the {self._name} stream is cut off: its last lines are missing"
                    return b""
            self._at_start = False
            try:
                text = self._stream.decompress(packed, size)
            except (OSError, lzma.LZMAError) as error:
                self.fault = f"the {self._name} stream is broken ({error}): what follows is missing"
                return b""
            if text:
                return text
        return b""


class OpenedStream(TextStream):
    """Text that another program opened, such as a member of a zip archive; ``close`` closes it."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end of the file or at the place where it is damaged."""
        if self.fault is not None:
            return b""
        try:
            return super().read(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            self.fault = f"the file is cut off or broken ({error}): what follows is missing"
            return b""


_UNSUPPORTED = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x04\x22\x4d\x18": "lz4 data",
    b"\xff\x06\x00\x00sNaPpY": "snappy data",
    b"\x1f\x9d": "compress (.Z) data",
    b"Obj\x01": "an Avro file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_LONGEST_SIGNATURE = 16


def open_text(path: Path) -> TextStream:
    """The text of a tape: gzip, Zstandard, bzip2, xz or uncompressed by its first bytes, whatever its name.

    Raises:
        UnreadableFile: the file cannot be opened, or is compressed in another way.
    """
    try:
        head = _first_bytes(path)
        for signature, name in _UNSUPPORTED.items():
            if head.startswith(signature):
                raise UnreadableFile(
                    path, f"{name}, which is not read; unpack it, or pack the tape with gzip, zstd, bzip2 or xz"
                )
        if head.startswith(b"\x1f\x8b"):
            return GzipStream(path.open("rb"))
        if head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
            return ZstdStream(path)
        if head.startswith(b"BZh"):
            return PackedStream(path.open("rb"), "bzip2", bz2.BZ2Decompressor)
        if head.startswith(b"\xfd7zXZ\x00"):
            return PackedStream(path.open("rb"), "xz", lzma.LZMADecompressor)
        return TextStream(cast("BinaryIO", path.open("rb", buffering=0)))
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_SIGNATURE)


_TEXT_OR_PACKED = (b"{", b"[", b"\xef\xbb\xbf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", _ZSTD)


def holds_parquet(path: Path) -> bool:
    """Whether a tape is read as Parquet: by its first bytes or, if they are no text either, by its name.

    Raises:
        UnreadableFile: the file cannot be opened.
    """
    try:
        head = _first_bytes(path)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error
    return head.startswith(b"PAR1") or (is_parquet(path) and not head.startswith(_TEXT_OR_PACKED))


class Blocks:
    """A tape's text in blocks of about ``size`` bytes that end with a line end; the last one may lack it.

    A byte order mark at the start is dropped, and CRLF becomes LF, which keeps line numbers. ``stream`` replaces the
    content of the file at ``path``, which then only names it.
    """

    def __init__(self, path: Path, size: int, stream: TextStream | None = None) -> None:
        self._path = path
        self._size = size
        self._stream = open_text(path) if stream is None else stream

    @property
    def consumed(self) -> int:
        """Bytes read from disk so far."""
        return self._stream.consumed

    @property
    def fault(self) -> str | None:
        """The reason why the stream ended early, or None."""
        return self._stream.fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[bytes]:
        rest: list[bytes] = []
        held, first = 0, True
        while data := self._read_full():
            cut = data.rfind(b"\n") + 1
            if cut == 0:
                rest.append(data)
                held += len(data)
                if held > LONGEST_LINE:
                    raise UnreadableFile(self._path, f"no line end within {held} bytes: a tape has lines")
                continue
            yield _normalize(b"".join((*rest, memoryview(data)[:cut])), first)
            rest, first = [data[cut:]], False
            held = len(rest[0])
        if last := b"".join(rest):
            yield _normalize(last, first)

    def _read_full(self) -> bytes:
        """The next ``size`` bytes of text, fewer at the end; one read of a compressed stream returns fewer."""
        parts: list[bytes] = []
        missing = self._size
        while missing > 0 and (data := self._stream.read(missing)):
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _normalize(block: bytes, first: bool) -> bytes:
    if first:
        block = block.removeprefix(_BOM)
    return block.replace(b"\r\n", b"\n") if b"\r" in block else block
