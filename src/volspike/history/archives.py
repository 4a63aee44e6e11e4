"""The public archives of trades: one table with every address, file layout, and the terms of use of each venue.

Binance: https://github.com/binance/binance-public-data. Bybit: https://public.bybit.com. OKX:
https://www.okx.com/historical-data. Tardis: https://docs.tardis.dev/downloadable-csv-files/api, whose days are those of
the time of receipt. The days are those of the venue's files, which need not begin at midnight UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from volspike.errors import UsageError
from volspike.market.product import canonical_product, product_name, split_product

DAY: Final = timedelta(days=1)

_SYMBOL = re.compile(r"[A-Z0-9]+([-._][A-Z0-9]+)*")
_DATED = re.compile(r"\d{6}|PERP")
_BYBIT_EXPIRY = re.compile(r"\d{1,2}[A-Z]{3}\d{2}")


@dataclass(frozen=True, slots=True)
class ArchiveLayout:
    """The files of one kind (``aggTrades``) of an archive, of which each covers a day or a calendar month.

    ``path`` follows the archive's address; ``{day:…}`` is the first day, ``{symbol}`` and ``{exchange}`` are the names
    that the archive uses. ``has_consecutive_ids``: a jump of the trade id is a loss.
    """

    kind: str
    path: str
    is_monthly: bool = False
    has_consecutive_ids: bool = False


@dataclass(frozen=True, slots=True)
class Archive:
    """The public history of a venue as files.

    ``symbol`` turns a canonical product into the archive's symbol, ``exchange`` into the name of its exchange.
    ``file_format`` is one of ``tape.importers.FORMATS``. A file of a day is published within ``delay_days`` after its
    end. ``checksum_ending`` follows a file's address to that of its SHA-256, if the venue publishes one.
    ``key_variable`` names the environment variable with the key that all days but the first of a month need.
    """

    name: str
    url: str
    layouts: tuple[ArchiveLayout, ...]
    file_format: str
    example: str
    terms: str
    symbol: Callable[[str], str]
    exchange: Callable[[str], str] = str
    delay_days: int = 3
    checksum_ending: str = ""
    key_variable: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of files, the preferred one first."""
        return tuple(dict.fromkeys(layout.kind for layout in self.layouts))

    def layout(self, kind: str, *, is_monthly: bool) -> ArchiveLayout | None:
        """The layout of a kind; None if the archive has none by the month."""
        return next((each for each in self.layouts if each.kind == kind and each.is_monthly == is_monthly), None)

    def needs_key(self, day: date) -> bool:
        """Whether the file of a day needs a key."""
        return bool(self.key_variable) and day.day != 1


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of an archive: the product's trades from ``first`` to before ``end``."""

    archive: Archive
    layout: ArchiveLayout
    product_id: str
    first: date
    end: date

    @property
    def path(self) -> str:
        """The path of the file in the archive; it begins with a slash."""
        symbol, exchange = self.archive.symbol(self.product_id), self.archive.exchange(self.product_id)
        return self.layout.path.format(symbol=symbol, exchange=exchange, day=self.first)

    @property
    def name(self) -> str:
        """The name of the downloaded file; that of Tardis states no day."""
        name = self.path.rpartition("/")[2]
        return name if self.label in name else f"{self.label}_{self.layout.kind}_{name}"

    @property
    def label(self) -> str:
        """The day or month that the file covers: ``2025-10-04`` or ``2025-10``."""
        return f"{self.first:%Y-%m}" if self.layout.is_monthly else f"{self.first:%Y-%m-%d}"

    @property
    def tape_name(self) -> str:
        """The file name of the tape: ``BTC-USDT-aggTrades-2025-10-04.parquet``."""
        return f"{split_product(self.product_id)[1].replace('/', '-')}-{self.layout.kind}-{self.label}.parquet"

    def days(self) -> Iterator[ArchiveFile]:
        """The files by the day that cover the same time."""
        layout = self.archive.layout(self.layout.kind, is_monthly=False)
        assert layout is not None  # noqa: S101  every archive has files by the day
        for day in days_between(self.first, self.end):
            yield ArchiveFile(self.archive, layout, self.product_id, day, day + DAY)

    def is_due(self, now_ns: int) -> bool:
        """Whether the venue has had the time that it usually needs to publish the file."""
        delay = self.archive.delay_days * DAY + (7 * DAY if self.layout.is_monthly else timedelta())
        published = datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC) + delay
        return published.timestamp() * 1e9 <= now_ns


def _joined(product_id: str) -> str:
    """Binance's symbol: ``BTC-USDT`` → ``BTCUSDT``, ``BTC-USD-PERP`` → ``BTCUSD_PERP``."""
    parts = split_product(product_id)[1].split("-")
    if len(parts) > 2 and _DATED.fullmatch(parts[-1]):
        return f"{''.join(parts[:-1])}_{parts[-1]}"
    return "".join(parts)


def _bybit_symbol(product_id: str) -> str:
    """Bybit's symbol: ``BTC-USDT`` → ``BTCUSDT``, ``BTC-29MAR24`` → ``BTC-29MAR24``."""
    symbol = split_product(product_id)[1]
    return symbol if _BYBIT_EXPIRY.fullmatch(symbol.rpartition("-")[2]) else symbol.replace("-", "")


def _own(product_id: str) -> str:
    return split_product(product_id)[1]


_TARDIS_EXCHANGES: Final = {
    "binance-um": "binance-futures",
    "binance-cm": "binance-delivery",
    "bybit": "bybit-spot",
    "bybit-linear": "bybit",
    "bybit-inverse": "bybit",
}
_KRAKEN_CURRENCIES: Final = {"BTC": "XBT", "DOGE": "XDG"}


def _tardis_exchange(product_id: str) -> str:
    venue, symbol = split_product(product_id)
    if venue == "okx":
        return "okex-swap" if symbol.endswith("-SWAP") else "okex-futures" if symbol.count("-") > 1 else "okex"
    return _TARDIS_EXCHANGES.get(venue, venue)


def _tardis_symbol(product_id: str) -> str:
    venue, symbol = split_product(product_id)
    if venue.startswith("binance"):
        return _joined(product_id)
    if venue.startswith("bybit"):
        return _bybit_symbol(product_id)
    if venue == "kraken":
        return "-".join(_KRAKEN_CURRENCIES.get(part, part) for part in symbol.split("-"))
    return symbol if venue in {"coinbase", "okx", "deribit"} else symbol.replace("-", "")


def _binance(name: str, folder: str, example: str = "BTC-USDT") -> Archive:
    layouts = [
        ArchiveLayout(
            kind=kind,
            path=f"{folder}/{period}/{kind}/{{symbol}}/{{symbol}}-{kind}-{{day:{stamp}}}.zip",
            is_monthly=period == "monthly",
            has_consecutive_ids=True,
        )
        for kind in ("aggTrades", "trades")
        for period, stamp in (("daily", "%Y-%m-%d"), ("monthly", "%Y-%m"))
    ]
    return Archive(
        name=name,
        url="https://data.binance.vision",
        layouts=tuple(layouts),
        file_format="binance",
        example=example,
        terms="public data of Binance; terms: https://www.binance.com/en/terms",
        symbol=_joined,
        checksum_ending=".CHECKSUM",
    )


def _bybit(name: str, path: str, example: str = "BTC-USDT") -> Archive:
    return Archive(
        name=name,
        url="https://public.bybit.com",
        layouts=(ArchiveLayout("trades", path),),
        file_format="bybit",
        example=example,
        terms="public data of Bybit; terms: https://www.bybit.com/en/help-center/article/Terms-of-Service",
        symbol=_bybit_symbol,
    )


ARCHIVES: Final[Mapping[str, Archive]] = {
    archive.name: archive
    for archive in (
        _binance("binance", "/data/spot"),
        _binance("binance-um", "/data/futures/um"),
        _binance("binance-cm", "/data/futures/cm", "BTC-USD-PERP"),
        _bybit("bybit", "/spot/{symbol}/{symbol}_{day:%Y-%m-%d}.csv.gz"),
        _bybit("bybit-linear", "/trading/{symbol}/{symbol}{day:%Y-%m-%d}.csv.gz"),
        _bybit("bybit-inverse", "/trading/{symbol}/{symbol}{day:%Y-%m-%d}.csv.gz", "BTC-USD"),
        Archive(
            name="okx",
            url="https://www.okx.com",
            layouts=(
                ArchiveLayout(
                    "trades",
                    "/cdn/okex/traderecords/trades/daily/{day:%Y%m%d}/{symbol}-trades-{day:%Y-%m-%d}.zip",
                    has_consecutive_ids=True,
                ),
                ArchiveLayout(
                    "aggTrades",
                    "/cdn/okex/traderecords/aggtrades/daily/{day:%Y%m%d}/{symbol}-aggtrades-{day:%Y-%m-%d}.zip",
                ),
            ),
            file_format="okx",
            example="BTC-USDT",
            terms="public data of OKX; terms: https://www.okx.com/help/terms-of-service",
            symbol=_own,
        ),
        Archive(
            name="tardis",
            url="https://datasets.tardis.dev",
            layouts=(
                ArchiveLayout("trades", "/v1/{exchange}/trades/{day:%Y/%m/%d}/{symbol}.csv.gz"),
                ArchiveLayout("quotes", "/v1/{exchange}/quotes/{day:%Y/%m/%d}/{symbol}.csv.gz"),
            ),
            file_format="tardis",
            example="binance:BTC-USDT",
            terms="data of Tardis; terms: https://docs.tardis.dev/legal/terms-of-service",
            symbol=_tardis_symbol,
            exchange=_tardis_exchange,
            key_variable="TARDIS_API_KEY",
        ),
    )
}
"""Every archive, by the name of its source; no other place holds an address of one."""


def source_product(source: str, name: str, example: str) -> str:
    """The canonical product of a name that a user wrote for ``source``; Tardis has the products of many venues.

    >>> source_product("binance", "btc-usdt", "BTC-USDT")
    'binance:BTC-USDT'

    Raises:
        UsageError: the name is malformed, or of another venue.
    """
    venue = name.strip().lower().rpartition(":")[0]
    if venue and source not in {"tardis", venue}:
        raise UsageError(f"{name} is a product of {venue}: use `volspike history {venue}`, or name it as {example}")
    if source == "tardis" and not venue:
        raise UsageError(f"name the exchange of {name} too, as in {example}: Tardis has the data of many")
    product_id = canonical_product(name if venue else product_name(source, name))
    if not _SYMBOL.fullmatch(split_product(product_id)[1]) or "-" not in product_id.rpartition(":")[2]:
        raise UsageError(f"invalid product {name!r}: name it with hyphens, as in {example}")
    return product_id


def product_folder(source: str, product_id: str) -> str:
    """The path of a product's tapes below the folder of all history: ``binance/BTC-USDT``.

    >>> product_folder("tardis", "binance:BTC-USDT")
    'tardis/binance-BTC-USDT'
    """
    venue, symbol = split_product(product_id)
    return f"{source}/{symbol}" if venue == source else f"{source}/{venue}-{symbol}"


def days_between(first: date, end: date) -> Iterator[date]:
    """The days from ``first`` to before ``end``."""
    for number in range((end - first).days):
        yield first + number * DAY


def plan_files(archive: Archive, product_id: str, kind: str, days: Collection[date], now_ns: int) -> list[ArchiveFile]:
    """The files that cover ``days``, oldest first: by the month where all its days are wanted and it is due.

    >>> days = list(days_between(date(2025, 1, 31), date(2025, 3, 2)))
    >>> files = plan_files(ARCHIVES["binance"], "binance:BTC-USDT", "aggTrades", days, 1_800_000_000_000_000_000)
    >>> [file.label for file in files]
    ['2025-01-31', '2025-02', '2025-03-01']
    """
    daily = archive.layout(kind, is_monthly=False)
    monthly = archive.layout(kind, is_monthly=True)
    if daily is None:
        raise UsageError(f"{archive.name} has no files of {kind}; available: {', '.join(archive.kinds)}")
    wanted, files = set(days), list[ArchiveFile]()
    for day in sorted(wanted):
        if files and day < files[-1].end:
            continue
        if monthly is not None and day.day == 1:
            end = (day + 31 * DAY).replace(day=1)
            month = ArchiveFile(archive, monthly, product_id, day, end)
            if month.is_due(now_ns) and wanted.issuperset(days_between(day, end)):
                files.append(month)
                continue
        files.append(ArchiveFile(archive, daily, product_id, day, day + DAY))
    return files
