"""File names of tapes, and the tapes that paths, folders and globs name.

A recorder writes ``ticks_BTCUSD_20251206_054535.ndjson``, from the product and the time of the first tick. Compaction
turns all such files of an hour into ``ticks_BTCUSD_20251206_05.parquet`` (``…_05_2.parquet`` for files that were added
later). The Parquet tape lists the files that it replaces in its metadata, and readers skip them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import UsageError
from volspike.market import SECOND_NS
from volspike.tape.report import REJECTED_ENDING

_QUOTE_CURRENCIES = ("USDT", "USDC", "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "BTC", "ETH")
_NAME = re.compile(r"ticks_([A-Z0-9]+)_(\d{8})_(\d{6}|\d{2})(?:[_.].*)?")
_PRODUCT = re.compile(r"(?:ticks_([A-Za-z0-9]+)|([A-Za-z0-9]+)_(?:trades|ticks))(?:[_.].*)?")


@dataclass(frozen=True, slots=True)
class TapeName:
    """The content of a tape's file name: the product and the start of its recording (ns UTC, complete seconds)."""

    product_id: str
    started: int


def tape_name(product_id: str, started: int, ending: str = ".ndjson") -> str:
    """The file name of a tape of ``product_id`` whose first tick was received at ``started`` (ns UTC).

    >>> tape_name("BTC-USD", 1_764_999_935_000_000_000)
    'ticks_BTCUSD_20251206_054535.ndjson'
    """
    begun = datetime.fromtimestamp(started // SECOND_NS, UTC)
    return f"ticks_{product_id.replace('-', '')}_{begun:%Y%m%d_%H%M%S}{ending}"


def symbol_of(product_id: str) -> str:
    """A product in a file name: its letters and digits, in capitals.

    >>> symbol_of("BTC-USD")
    'BTCUSD'
    """
    return re.sub("[^A-Z0-9]", "", product_id.upper())[:40] or "UNNAMED"


def read_tape_name(path: PurePath) -> TapeName | None:
    """The content of the name of ``path``, or None if it has another form; a compacted tape starts at its hour.

    >>> read_tape_name(PurePath("ticks_BTCUSD_20251206_054535.ndjson"))
    TapeName(product_id='BTC-USD', started=1764999935000000000)
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        begun = datetime.strptime(match[2] + match[3].ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return TapeName(hyphenated(match[1]), int(begun.timestamp()) * SECOND_NS)


def product_of(path: PurePath) -> str | None:
    """The product in a file's name (``ticks_BTCUSD_…``, ``btcjpy_trades_…``), or None.

    >>> product_of(PurePath("btcjpy_trades_20180120_25.parquet"))
    'BTC-JPY'
    """
    match = _PRODUCT.fullmatch(path.name)
    return None if match is None else hyphenated((match[1] or match[2]).upper())


def hyphenated(symbol: str) -> str:
    """The product of a symbol without a hyphen, which is inserted before a known quote currency.

    >>> hyphenated("ETHBTC")
    'ETH-BTC'
    """
    for quote in _QUOTE_CURRENCIES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return f"{symbol.removesuffix(quote)}-{quote}"
    return symbol


HOUR_NS = 3_600 * SECOND_NS
"""The length of an hour, the longest time that one recorded file covers."""

SOURCES_KEY = b"volspike_sources"

_RECORDED = re.compile(r"ticks_([A-Z0-9]+)_(\d{8}_\d{2})(\d{4})(?:_.*)?\.ndjson")
_COMPACTED = re.compile(r"ticks_([A-Z0-9]+)_(\d{8}_\d{2})()(?:_\d+)?\.parquet")


class HourName(NamedTuple):
    """The content of a recorded or compacted tape's name: hour (``20251206_05``), start in it (``4535``) and symbol.

    Names sort by time.
    """

    hour: str
    start: str
    symbol: str


def read_hour_name(path: Path) -> HourName | None:
    """The content of a recorded or compacted tape's name; None for any other file.

    >>> read_hour_name(Path("ticks_BTCUSD_20251206_054535.ndjson"))
    HourName(hour='20251206_05', start='4535', symbol='BTCUSD')
    """
    match = _RECORDED.fullmatch(path.name) or _COMPACTED.fullmatch(path.name)
    return None if match is None else HourName(hour=match[2], start=match[3], symbol=match[1])


def hour_path(folder: Path, symbol: str, hour: str) -> Path:
    """The next unused name of a Parquet tape of an hour."""
    path, number = folder / f"ticks_{symbol}_{hour}.parquet", 1
    while path.exists():
        number += 1
        path = folder / f"ticks_{symbol}_{hour}_{number}.parquet"
    return path


def sources_metadata(sources: Sequence[Path]) -> dict[bytes, bytes]:
    """The metadata of a Parquet tape that lists the files that it replaces."""
    return {SOURCES_KEY: json.dumps([path.name for path in sources]).encode()}


def sources_of(path: Path) -> frozenset[Path]:
    """The files in its folder that a Parquet tape replaces; none if it lists none or cannot be read."""
    try:
        text = (pq.read_metadata(path).metadata or {}).get(SOURCES_KEY)
        names = [] if text is None else json.loads(text)
    except (pa.ArrowException, OSError, ValueError):
        return frozenset()
    return frozenset(path.with_name(name) for name in names if isinstance(name, str))


def drop_replaced(paths: Sequence[Path]) -> list[Path]:
    """The tapes without those that another one of them replaces, as after a compaction that was interrupted."""
    recorded = {_key(path) for path in paths if _RECORDED.fullmatch(path.name)}
    replaced: set[Path] = set()
    for path in paths:
        if _COMPACTED.fullmatch(path.name) and _key(path) in recorded:
            replaced.update(sources_of(path.resolve()))
    return [path for path in paths if path.resolve() not in replaced] if replaced else list(paths)


def _key(path: Path) -> tuple[Path, str, str]:
    name = read_hour_name(path)
    return (path.parent.resolve(), name.symbol, name.hour) if name is not None else (path.parent, "", "")


LEDGER_NAME = "gaps.ndjson"
"""The file name of a folder's gap ledger (see ``ledger``)."""

MANIFEST_NAME = "manifest.json"
"""The file name of the manifest of a folder of downloaded history (see ``history.manifest``)."""

RECORDER_LOCK_NAME = ".recorder.lock"
"""The file that a recorder locks in its folder; it holds the process id."""

PARQUET_ENDINGS = (".parquet",)
NDJSON_ENDINGS = tuple(
    kind + packed for kind in (".ndjson", ".jsonl", ".json") for packed in ("", ".zst", ".gz", ".bz2", ".xz")
)
_ENDINGS = "they end in .ndjson, .jsonl or .json (also with .zst, .gz, .bz2 or .xz), or in .parquet"


def is_parquet(path: Path) -> bool:
    """Whether the name of ``path`` is that of a Parquet tape."""
    return path.name.lower().endswith(PARQUET_ENDINGS)


def is_tape(path: Path) -> bool:
    """Whether the name of ``path`` is that of a tape, and not that of rejected lines, a gap ledger or a manifest."""
    name = path.name.lower()
    if name in {LEDGER_NAME, MANIFEST_NAME} or name.endswith(REJECTED_ENDING):
        return False
    return name.endswith(NDJSON_ENDINGS + PARQUET_ENDINGS)


def tapes_of(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """The tapes that paths, folders and globs (``**`` includes subfolders) name, without duplicates.

    A recorded file that a compacted tape among them replaces is left out.

    Raises:
        UsageError: a source names no tape.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise UsageError("no tape was named")
    found: dict[Path, Path] = {}
    for source in given:
        for path in _expanded(source):
            found.setdefault(path.resolve(), path)
    return drop_replaced(list(found.values()))


def _expanded(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _tapes(path.iterdir()) or _none(f"folder {source} holds no tape: {_ENDINGS}")
    if path.exists():
        return [path] if is_tape(path) else _none(f"{source} is no tape by its name: {_ENDINGS}")
    if any(sign in str(source) for sign in "*?["):
        return _tapes(expand_pattern(path)) or _none(f"no tape matches {source}: {_ENDINGS}")
    return _none(f"no such tape: {source}")


def expand_pattern(pattern: Path) -> Iterator[Path]:
    """The paths that match a pattern. A part that exists under its own name is that file or folder, not a pattern.

    So ``data [1]/*.ndjson`` are the files of the folder ``data [1]`` if there is one.
    """
    base = Path()
    for position, part in enumerate(pattern.parts):
        if any(sign in part for sign in "*?[") and not (base / part).exists():
            return base.glob(str(Path(*pattern.parts[position:])))
        base /= part
    return iter([base] if base.exists() else [])


def _tapes(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if is_tape(path) and path.is_file())


def _none(text: str) -> list[Path]:
    raise UsageError(text)
