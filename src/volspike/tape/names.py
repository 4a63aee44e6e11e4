"""File names of tapes, and the tapes that paths, folders and globs name.

A recorder writes ``ticks_BTCUSD_20251206_054535.ndjson``, from the product and the time of the first tick; for another
venue than Coinbase ``ticks_binance-BTCUSDT_20251206_054535.ndjson``. Compaction turns all such files of an hour into
``ticks_BTCUSD_20251206_05.parquet`` (``…_05_2.parquet`` for files that were added later). The Parquet tape lists the
files that it replaces in its metadata, and readers skip them.

A file whose rows state no venue has that of its name (``bitflyer_BTC-JPY_….parquet``) or of its folder (``binance/``),
so that equal products of two venues never merge.
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
from volspike.market.product import COINBASE, KNOWN_VENUES, hyphenated, product_name, split_product
from volspike.tape.report import REJECTED_ENDING

_LABEL = r"(?:[a-z][a-z0-9-]*-)?[A-Z0-9]+"
_NAME = re.compile(rf"ticks_({_LABEL})_(\d{{8}})_(\d{{6}}|\d{{2}})(?:[_.].*)?")
_PRODUCT = re.compile(
    r"(?:(?:ticks|trades)_((?:[a-z][a-z0-9-]*-)?[A-Za-z0-9]+)|([A-Za-z0-9]+)_(?:trades|ticks))(?:[_.].*)?"
)
_VENUE_FIRST = re.compile(r"([a-z][a-z0-9-]*)_[A-Z0-9]+(?:-[A-Z0-9]+)+(?:[_.].*)?")


@dataclass(frozen=True, slots=True)
class TapeName:
    """The content of a tape's file name: the product and the start of its recording (ns UTC, complete seconds)."""

    product_id: str
    started: int


def tape_name(product_id: str, started: int, ending: str = ".ndjson") -> str:
    """The file name of a tape of ``product_id`` whose first tick was received at ``started`` (ns UTC).

    >>> tape_name("BTC-USD", 1_764_999_935_000_000_000), tape_name("binance:BTC-USDT", 1_764_999_935_000_000_000)
    ('ticks_BTCUSD_20251206_054535.ndjson', 'ticks_binance-BTCUSDT_20251206_054535.ndjson')
    """
    begun = datetime.fromtimestamp(started // SECOND_NS, UTC)
    return f"ticks_{symbol_of(product_id)}_{begun:%Y%m%d_%H%M%S}{ending}"


def symbol_of(product_id: str) -> str:
    """A product in a file name: its letters and digits in capitals, after the venue if that is not Coinbase.

    >>> symbol_of("BTC-USD"), symbol_of("binance-um:BTC-USDT")
    ('BTCUSD', 'binance-um-BTCUSDT')
    """
    venue, symbol = split_product(product_id, "")
    name = re.sub("[^A-Z0-9]", "", symbol.upper())[:40] or "UNNAMED"
    venue = re.sub("[^a-z0-9-]", "", venue.lower())[:40].lstrip("-0123456789")
    return f"{venue}-{name}" if venue else name


def _labelled(label: str) -> str:
    """The product of a label in a file name."""
    venue, _, symbol = label.rpartition("-")
    return product_name(venue or COINBASE, hyphenated(symbol.upper()))


def venue_of(path: PurePath) -> str | None:
    """The venue that a file's name or its folder states; None if neither does, or for Coinbase.

    >>> venue_of(PurePath("two/bitflyer_BTC-JPY_20180812.parquet")), venue_of(PurePath("binance/BTC-USDT_2025.parquet"))
    ('bitflyer', 'binance')
    >>> venue_of(PurePath("ticks_kraken-BTCUSD_20251206_054535.ndjson")), venue_of(PurePath("raw/ticks.ndjson"))
    ('kraken', None)
    """
    label, first = _NAME.fullmatch(path.name), _VENUE_FIRST.fullmatch(path.name)
    named = label[1].rpartition("-")[0] if label is not None else ""
    if not named and first is not None and first[1] in KNOWN_VENUES:
        named = first[1]
    if not named and path.parent.name.lower() in KNOWN_VENUES:
        named = path.parent.name.lower()
    return None if named in {"", COINBASE} else named


def with_venue(products: tuple[str, ...], venue: str | None) -> tuple[str, ...]:
    """The canonical names of products, those without a venue at ``venue``.

    >>> with_venue(("BTC-JPY", "coinbase:BTC-USD", "kraken:BTC-USD"), "bitflyer")
    ('bitflyer:BTC-JPY', 'BTC-USD', 'kraken:BTC-USD')
    """
    if venue is None and not any(":" in name for name in products):
        return products
    return tuple(product_name(*split_product(name, COINBASE if venue is None else venue)) for name in products)


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
    return TapeName(_labelled(match[1]), int(begun.timestamp()) * SECOND_NS)


def product_of(path: PurePath) -> str | None:
    """The product in a file's name (``ticks_BTCUSD_…``, ``btcjpy_trades_…``), or None.

    >>> product_of(PurePath("btcjpy_trades_20180120_25.parquet"))
    'BTC-JPY'
    """
    match = _PRODUCT.fullmatch(path.name)
    return None if match is None else _labelled(match[1] or match[2])


HOUR_NS = 3_600 * SECOND_NS
"""The length of an hour, the longest time that one recorded file covers."""

SOURCES_KEY = b"volspike_sources"

_RECORDED = re.compile(rf"ticks_({_LABEL})_(\d{{8}}_\d{{2}})(\d{{4}})(?:_.*)?\.ndjson")
_COMPACTED = re.compile(rf"ticks_({_LABEL})_(\d{{8}}_\d{{2}})()(?:_\d+)?\.parquet")


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
    """The tapes that paths, folders with their subfolders, and globs name, without duplicates.

    Hidden folders and files are left out. A recorded file that a compacted tape among them replaces is left out.

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
        return _tapes(_visible(path)) or _none(f"folder {source} holds no tape: {_ENDINGS}")
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


def _visible(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, without hidden ones."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible(path)
        else:
            yield path


def _tapes(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if is_tape(path) and path.is_file())


def _none(text: str) -> list[Path]:
    raise UsageError(text)
