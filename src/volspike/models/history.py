"""What was done about the served model, when and why: ``history.jsonl`` among the artifacts, only ever added to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from volspike.errors import UnreadableFile, UsageError

HISTORY_FILE: Final = "history.jsonl"

Event: TypeAlias = Literal[
    "checked",
    "trained",
    "waits",
    "rejected",
    "promoted",
    "rolled_back",
    "failed",
]


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: what happened at ``time`` (RFC 3339) and the reason; ``digest`` is of the model's ONNX graph.

    ``checked`` looked and left it at that, ``trained`` made a challenger, ``waits`` leaves it in shadow for longer,
    ``rejected`` drops it, ``promoted`` and ``rolled_back`` changed what is served, and ``failed`` changed nothing.
    ``severity`` is the drift found, ``data_start`` and ``data_end`` say which rows were looked at, and ``figures``
    are the numbers that the decision was made by.
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


def remember(artifacts: Path, entry: HistoryEntry) -> None:
    """Adds a line, and has it on the disk before it returns.

    Raises:
        UsageError: the file cannot be written.
    """
    file = artifacts / HISTORY_FILE
    line = msgspec.json.encode(entry) + b"\n"
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            # a run that was killed may have left half a line: the next one begins a line of its own
            start = b"\n" if stream.tell() and not _ends_a_line(file) else b""
            stream.write(start + line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error


def history(artifacts: Path) -> list[HistoryEntry]:
    """All entries, oldest first; a torn line costs nothing but itself.

    Raises:
        UnreadableFile: the file is there and cannot be opened.
    """
    try:
        lines = (artifacts / HISTORY_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableFile(artifacts / HISTORY_FILE, f"cannot be opened: {error.strerror or error}") from error
    return [entry for line in lines if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> HistoryEntry | None:
    try:
        return msgspec.json.decode(line, type=HistoryEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
