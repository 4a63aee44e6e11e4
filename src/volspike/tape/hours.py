"""Tapes by product and hour, and which recorded files an hour's Parquet tape already holds.

A recorder writes ``ticks_BTCUSD_20251206_054535.ndjson``; the compact form of all such files of an hour is
``ticks_BTCUSD_20251206_05.parquet`` (``…_05_2.parquet`` for what turned up later). It names the files that it
holds, and gets its name only once it is verified: so of two forms of the same ticks the Parquet tape wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SOURCES_KEY = b"volspike_sources"

_RECORDED = re.compile(r"ticks_([A-Z0-9]+)_(\d{8}_\d{2})(\d{4})(?:_.*)?\.ndjson")
_COMPACTED = re.compile(r"ticks_([A-Z0-9]+)_(\d{8}_\d{2})()(?:_\d+)?\.parquet")


class HourName(NamedTuple):
    """What the name of a tape tells: the hour (``20251206_05``), the start in it (``4535``) and the product's symbol.

    They sort by time.
    """

    hour: str
    start: str
    symbol: str


def read_hour_name(path: Path) -> HourName | None:
    """What the name of a recorded or compacted tape tells; None for any other file.

    >>> read_hour_name(Path("ticks_BTCUSD_20251206_054535.ndjson"))
    HourName(hour='20251206_05', start='4535', symbol='BTCUSD')
    """
    match = _RECORDED.fullmatch(path.name) or _COMPACTED.fullmatch(path.name)
    return None if match is None else HourName(hour=match[2], start=match[3], symbol=match[1])


def hour_path(folder: Path, symbol: str, hour: str) -> Path:
    """The name of the next Parquet tape of an hour, one that is not there yet."""
    path, number = folder / f"ticks_{symbol}_{hour}.parquet", 1
    while path.exists():
        number += 1
        path = folder / f"ticks_{symbol}_{hour}_{number}.parquet"
    return path


def sources_metadata(sources: Sequence[Path]) -> dict[bytes, bytes]:
    """How a Parquet tape tells which files it holds."""
    return {SOURCES_KEY: json.dumps([path.name for path in sources]).encode()}


def sources_of(path: Path) -> frozenset[Path]:
    """The files, in its own folder, whose ticks a Parquet tape holds; none where it tells none or cannot be read."""
    try:
        told = (pq.read_metadata(path).metadata or {}).get(SOURCES_KEY)
        names = [] if told is None else json.loads(told)
    except (pa.ArrowException, OSError, ValueError):
        return frozenset()
    return frozenset(path.with_name(name) for name in names if isinstance(name, str))


def without_held(paths: Sequence[Path]) -> list[Path]:
    """The tapes without those whose ticks another of them holds, as after a compaction that was interrupted."""
    recorded = {_key(path) for path in paths if _RECORDED.fullmatch(path.name)}
    held: set[Path] = set()
    for path in paths:
        if _COMPACTED.fullmatch(path.name) and _key(path) in recorded:
            held.update(sources_of(path.resolve()))
    return [path for path in paths if path.resolve() not in held] if held else list(paths)


def _key(path: Path) -> tuple[Path, str, str]:
    name = read_hour_name(path)
    return (path.parent.resolve(), name.symbol, name.hour) if name is not None else (path.parent, "", "")
