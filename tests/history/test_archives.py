"""The table of archives: addresses, symbols and plans."""

from __future__ import annotations

from datetime import date

import pytest

from tests.history.archive_server import file_of, time_ns
from volspike.errors import UsageError
from volspike.history.archives import ARCHIVES, days_between, plan_files, product_folder, source_product
from volspike.tape.importers import FORMATS

DAY = date(2025, 10, 4)
FUTURES = "https://data.binance.vision/data/futures"
LATER = time_ns(date(2026, 6, 1))


@pytest.mark.parametrize(
    ("source", "product_id", "kind", "url"),
    [
        (
            "binance",
            "binance:BTC-USDT",
            "aggTrades",
            "https://data.binance.vision/data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2025-10-04.zip",
        ),
        (
            "binance-um",
            "binance-um:LTC-USDT",
            "trades",
            "https://data.binance.vision/data/futures/um/daily/trades/LTCUSDT/LTCUSDT-trades-2025-10-04.zip",
        ),
        (
            "binance-cm",
            "binance-cm:BTC-USD-PERP",
            "aggTrades",
            f"{FUTURES}/cm/daily/aggTrades/BTCUSD_PERP/BTCUSD_PERP-aggTrades-2025-10-04.zip",
        ),
        (
            "binance-um",
            "binance-um:BTC-USDT-251226",
            "trades",
            f"{FUTURES}/um/daily/trades/BTCUSDT_251226/BTCUSDT_251226-trades-2025-10-04.zip",
        ),
        ("bybit", "bybit:BTC-USDT", "trades", "https://public.bybit.com/spot/BTCUSDT/BTCUSDT_2025-10-04.csv.gz"),
        (
            "bybit-linear",
            "bybit-linear:BTC-USDT",
            "trades",
            "https://public.bybit.com/trading/BTCUSDT/BTCUSDT2025-10-04.csv.gz",
        ),
        (
            "bybit-inverse",
            "bybit-inverse:BTC-USD",
            "trades",
            "https://public.bybit.com/trading/BTCUSD/BTCUSD2025-10-04.csv.gz",
        ),
        (
            "okx",
            "okx:BTC-USDT-SWAP",
            "trades",
            "https://www.okx.com/cdn/okex/traderecords/trades/daily/20251004/BTC-USDT-SWAP-trades-2025-10-04.zip",
        ),
        (
            "okx",
            "okx:BTC-USDT",
            "aggTrades",
            "https://www.okx.com/cdn/okex/traderecords/aggtrades/daily/20251004/BTC-USDT-aggtrades-2025-10-04.zip",
        ),
        (
            "tardis",
            "binance:BTC-USDT",
            "trades",
            "https://datasets.tardis.dev/v1/binance/trades/2025/10/04/BTCUSDT.csv.gz",
        ),
        (
            "tardis",
            "okx:BTC-USDT-SWAP",
            "quotes",
            "https://datasets.tardis.dev/v1/okex-swap/quotes/2025/10/04/BTC-USDT-SWAP.csv.gz",
        ),
        ("tardis", "BTC-USD", "trades", "https://datasets.tardis.dev/v1/coinbase/trades/2025/10/04/BTC-USD.csv.gz"),
    ],
)
def test_addresses_are_those_of_the_venues(source: str, product_id: str, kind: str, url: str) -> None:
    """Each address equals the one that the venue documents."""
    assert ARCHIVES[source].url + file_of(source, product_id, kind, DAY).path == url


def test_a_month_has_its_own_address() -> None:
    """The file of a month states the month only."""
    file = file_of("binance", "binance:BTC-USDT", "aggTrades", date(2025, 2, 1), date(2025, 3, 1))
    assert file.path == "/data/spot/monthly/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2025-02.zip"
    assert [day.label for day in file.days()][::27] == ["2025-02-01", "2025-02-28"]


def test_every_archive_has_daily_files_in_a_known_format() -> None:
    """Every entry of the table has an example, terms, a format that can be read, and files by the day of each kind."""
    for archive in ARCHIVES.values():
        assert archive.file_format in FORMATS
        assert archive.terms.count("https://") == 1
        product_id = source_product(archive.name, archive.example, archive.example)
        for kind in archive.kinds:
            assert file_of(archive.name, product_id, kind, DAY).path.startswith("/")


def test_names_of_files_and_tapes_are_unique_by_day_and_kind() -> None:
    """Two days, and two kinds, never share a name in the folder; Tardis states neither in its names."""
    files = [
        file_of("tardis", "binance:BTC-USDT", kind, day)
        for kind in ("trades", "quotes")
        for day in (DAY, date(2025, 10, 5))
    ]
    assert len({file.name for file in files}) == len({file.tape_name for file in files}) == 4


def test_complete_months_are_taken_as_one_file_if_it_is_due() -> None:
    """Months at the edges, and one that is not published yet, are taken by the day."""
    days = list(days_between(date(2025, 8, 30), date(2025, 10, 1)))
    plan = [file.label for file in plan_files(ARCHIVES["binance"], "binance:BTC-USDT", "trades", days, LATER)]
    assert plan == ["2025-08-30", "2025-08-31", "2025-09"]
    soon = time_ns(date(2025, 10, 4))
    assert len(plan_files(ARCHIVES["binance"], "binance:BTC-USDT", "trades", days, soon)) == 32


def test_a_month_with_a_day_that_is_there_is_taken_by_the_day() -> None:
    """No trade is downloaded twice."""
    days = [day for day in days_between(date(2025, 9, 1), date(2025, 10, 1)) if day != date(2025, 9, 15)]
    plan = plan_files(ARCHIVES["binance"], "binance:BTC-USDT", "trades", days, LATER)
    assert [file.first for file in plan] == days


@pytest.mark.parametrize(
    ("source", "name", "product_id"),
    [
        ("binance", "btc-usdt", "binance:BTC-USDT"),
        ("binance", "Binance:BTC-USDT", "binance:BTC-USDT"),
        ("coinbase", "BTC-USD", "BTC-USD"),
        ("tardis", "coinbase:BTC-USD", "BTC-USD"),
        ("okx", "BTC-USDT-SWAP", "okx:BTC-USDT-SWAP"),
    ],
)
def test_products_get_the_venue_of_their_source(source: str, name: str, product_id: str) -> None:
    """The canonical product carries the venue, in any spelling of the name."""
    assert source_product(source, name, "BTC-USDT") == product_id


@pytest.mark.parametrize(
    ("source", "name"),
    [("binance", "kraken:BTC-USD"), ("tardis", "BTC-USDT"), ("binance", "BTCUSDT"), ("binance", "A/../../B-C")],
)
def test_products_of_another_form_or_venue_are_refused(source: str, name: str) -> None:
    """A name that cannot be one of the source's products is a usage error."""
    with pytest.raises(UsageError):
        source_product(source, name, "BTC-USDT")


def test_folders_name_the_venue_where_the_source_is_another() -> None:
    """The folder of a product is unique within a source."""
    assert product_folder("binance", "binance:BTC-USDT") == "binance/BTC-USDT"
    assert product_folder("coinbase", "BTC-USD") == "coinbase/BTC-USD"
    assert product_folder("tardis", "BTC-USD") == "tardis/coinbase-BTC-USD"
