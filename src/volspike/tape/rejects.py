"""Damaged lines set aside: ``<tape>.rejected.ndjson`` beside the tape, so that what was refused can be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

REJECTED_ENDING = ".rejected.ndjson"


def rejected_path(tape: Path) -> Path:
    """Where the damaged lines of ``tape`` go.

    >>> rejected_path(Path("data/ticks_BTCUSD.ndjson.zst")).name
    'ticks_BTCUSD.rejected.ndjson'
    """
    stem = tape.name.removesuffix(".zst").removesuffix(".gz")
    return tape.with_name(stem.rpartition(".")[0] + REJECTED_ENDING)


class SetAside:
    """The rejected lines of one tape, written to a temporary name and renamed by ``keep``.

    The same tape always gives the same file: an older one is replaced, and left alone where this reading rejects
    nothing. With ``joins`` the lines follow those of another tape of the same stem (``a.ndjson``, ``a.ndjson.gz``)
    that was read just before. A folder that cannot be written to is no reason to stop: ``fault`` says so.
    """

    def __init__(self, tape: Path, *, joins: bool = False) -> None:
        self.target = rejected_path(tape)
        self.fault: str | None = None
        self._tape = tape.name
        self._joins = joins
        self._part = self.target.with_name(self.target.name + ".part")
        self._file: BinaryIO | None = None

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Sets one line aside; bytes that are no UTF-8 become lone surrogates (Python's ``surrogateescape``)."""
        if self.fault is not None:
            return
        told = {"file": self._tape, "line": line, "reason": reason, "text": text.decode("utf-8", "surrogateescape")}
        try:
            self._opened().write(json.dumps(told).encode() + b"\n")
        except OSError as error:
            self.fault = f"rejected lines could not be set aside in {self.target.name}: {error.strerror or error}"
            self.discard()

    def keep(self) -> Path | None:
        """Gives the file its name; None where there is nothing to keep."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.target)
        except OSError as error:
            self.fault = f"rejected lines could not be set aside in {self.target.name}: {error.strerror or error}"
            self.discard()
            return None
        self._file = None
        return self.target

    def discard(self) -> None:
        """Removes what was written under the temporary name, if anything; after ``keep`` it does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            earlier = self.target.read_bytes() if self._joins else b""
            self._file = self._part.open("wb")
            self._file.write(earlier)
        return self._file
