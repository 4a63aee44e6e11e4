"""The history of the served model: one line of JSON per event in ``history.jsonl``, only ever appended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from volspike.errors import UnreadableFile, UsageError

HISTORY_FILE: Final = "history.jsonl"

Event: TypeAlias = Literal["checked", "trained", "waits", "rejected", "promoted", "rolled_back", "failed"]


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event at ``time`` (RFC 3339), its reason, and the model (``digest``: of its ONNX graph) it is about.

    ``checked``: no training was needed. ``trained``: a challenger was trained. ``waits``: it stays in shadow.
    ``rejected``: it was dropped. ``promoted`` and ``rolled_back``: another model is served. ``failed``: the run
    changed nothing. ``severity`` is the drift found, ``data_start`` and ``data_end`` bound the rows used, ``figures``
    are the numbers behind the decision.
    """

    time: str
    event: Event
    reason: str
    trigger: str = ""
    model: str = ""
    digest: str = ""
    previous: str = ""
    severity: str = ""
    data_start: str = ""
    data_end: str = ""
    figures: dict[str, Any] = {}


def append_entry(artifacts: Path, entry: HistoryEntry) -> None:
    """Append a line and sync it to disk.

    Raises:
        UsageError: the file cannot be written.
    """
    file = artifacts / HISTORY_FILE
    line = msgspec.json.encode(entry) + b"\n"
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            # a killed run may have left half a line: start a new one
            start = b"\n" if stream.tell() and not _ends_with_newline(file) else b""
            stream.write(start + line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error


def read_history(artifacts: Path) -> list[HistoryEntry]:
    """All entries, oldest first; a damaged line is skipped.

    Raises:
        UnreadableFile: the file exists and cannot be opened.
    """
    try:
        lines = (artifacts / HISTORY_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableFile(artifacts / HISTORY_FILE, f"cannot be opened: {error.strerror or error}") from error
    return [entry for line in lines if (entry := _decode_entry(line)) is not None]


def _decode_entry(line: bytes) -> HistoryEntry | None:
    try:
        return msgspec.json.decode(line, type=HistoryEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
