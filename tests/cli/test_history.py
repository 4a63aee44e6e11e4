"""``volspike history``: months of public trades from a venue's archive into tapes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Outcome, Run, assert_refused
from tests.history.archive_server import ArchiveServer, agg_trades, file_of, open_archive, zipped
from tests.history.trades_exchange import Exchange, market, served
from tests.tape.strategies import read_all
from volspike.market import SECOND_NS
from volspike.tape.ledger import Ledger

PERIOD = ("--from", "2025-10-03", "--to", "2025-10-06")
FOLDER = Path("data/history/binance/BTC-USDT")


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    """Three days of aggTrades of Binance, of which the second is missing."""
    archive = ArchiveServer()
    for place in (0, 2):
        day = date(2025, 10, 3 + place)
        file = file_of("binance", "binance:BTC-USDT", "aggTrades", day)
        archive.add(file, zipped(agg_trades(range(place * 100, place * 100 + 100), day)))
    with open_archive(archive) as opened:
        yield opened


def history(volspike: Run, server: ArchiveServer, *arguments: object) -> Outcome:
    return volspike("history", "binance", "BTC-USDT", *arguments, "--base-url", server.url)


def test_a_period_is_downloaded_once(server: ArchiveServer, tmp_path: Path, volspike: Run) -> None:
    """The summary states files, trades, gaps and terms; a second run downloads nothing and says so."""
    first = history(volspike, server, *PERIOD)
    assert first.status == 0
    assert f"200 trades of binance:BTC-USDT → {FOLDER}" in first.out
    assert "200 trades from 2025-10-03 to 2025-10-06, 1 gaps; completeness: verified by trade ids" in first.out
    assert "https://www.binance.com/en/terms" in first.out
    assert first.err.startswith("warning: the venue has no file of 2025-10-04")
    assert len(read_all(tmp_path / FOLDER)) == 200
    assert [gap.lost for gap in Ledger.read(tmp_path / FOLDER)] == [100]
    again = history(volspike, server, *PERIOD)
    assert again.out.startswith("nothing to download: 2 of 3 days of binance:BTC-USDT are in data/history")


def test_a_dry_run_lists_addresses_and_sizes(server: ArchiveServer, tmp_path: Path, volspike: Run) -> None:
    """Each file has its address and size; nothing is written."""
    outcome = history(volspike, server, *PERIOD, "--dry-run")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"{server.url}/data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2025-10-03.zip  0.")
    assert lines[1].endswith("2025-10-04.zip  not there")
    assert lines[-1].startswith("2 files, 0.")
    assert list(tmp_path.iterdir()) == []


def test_yesterday_may_not_be_published_yet(server: ArchiveServer, tmp_path: Path, volspike: Run) -> None:
    """The last day is reported as not yet published, not as a gap."""
    today = datetime.now(UTC).date()
    day = today - timedelta(days=2)
    server.add(file_of("binance", "binance:BTC-USDT", "aggTrades", day), zipped(agg_trades(range(9), day)))
    outcome = history(volspike, server, "--days", 2)
    assert outcome.status == 0
    assert f"not yet published: {today - timedelta(days=1)}; run this again later" in outcome.out
    assert not (tmp_path / FOLDER / "gaps.ndjson").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere", "BTC-USDT", "--days", "3"), "no source 'nowhere'; available: binance"),
        (("binance", "BTCUSDT", "--days", "3"), "name it with hyphens"),
        (("binance", "kraken:BTC-USD", "--days", "3"), "is a product of kraken"),
        (("tardis", "BTC-USDT", "--days", "3"), "name the exchange"),
        (("binance", "BTC-USDT"), "name the period"),
        (("binance", "BTC-USDT", "--days", "3", "--from", "2025-01-01"), "exclude each other"),
        (("binance", "BTC-USDT", "--days", "0"), "--days must be from 1"),
        (("binance", "BTC-USDT", "--from", "2025-01-02", "--to", "2025-01-01"), "must begin before it ends"),
        (("binance", "BTC-USDT", "--from", "2025-01-01", "--to", "2999-01-01"), "in the future"),
        (("binance", "BTC-USDT", "--from", "yesterday"), "--from 'yesterday' is no day"),
        (("binance", "BTC-USDT", "--from", "2025-02-30"), "is no day"),
        (("binance", "BTC-USDT", "--days", "3", "--kind", "klines"), "available: aggTrades, trades"),
        (("coinbase", "BTC-USD", "--days", "3", "--kind", "quotes"), "coinbase has trades only"),
        (("binance", "BTC-USDT", "--days", "3", "--parallel", "0"), "--parallel must be from 1"),
        (("binance", "BTC-USDT", "--days", "3", "--rate", "2"), "--rate is for coinbase and kraken"),
        (("kraken", "BTC-USD", "--days", "3", "--rate", "-1"), "the rate must be above 0"),
        (("binance", "BTC-USDT", "--days", "3", "--base-url", "ftp://x"), "invalid address"),
        (("binance", "BTC-USDT", "--days", "3", "--out", "x.parquet"), "name a folder"),
        (("tardis", "binance:BTC-USDT", "--from", "2025-01-01", "--to", "2025-01-03"), "needs a key for 2025-01-02"),
    ],
)
def test_wrong_requests_are_refused(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives one line with the reason, before any request."""
    monkeypatch.delenv("TARDIS_API_KEY", raising=False)
    assert_refused(volspike("history", *arguments), USAGE, reason)


def test_an_unknown_product_is_bad_data(server: ArchiveServer, tmp_path: Path, volspike: Run) -> None:
    """A product of which the venue has no file ends with the address that was requested."""
    outcome = volspike("history", "binance", "NO-SUCH", *PERIOD, "--base-url", server.url)
    assert_refused(outcome, DATA, "no file of binance:NO-SUCH", "check the product")


def test_a_file_in_place_of_the_folder_is_refused(server: ArchiveServer, tmp_path: Path, volspike: Run) -> None:
    """A path that is a file cannot be the folder."""
    (tmp_path / "taken").write_text("")
    assert_refused(history(volspike, server, *PERIOD, "--out", "taken"), USAGE, "cannot write there")


def test_a_full_disk_is_one_line(
    server: ArchiveServer, tmp_path: Path, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the machine ends the command with its reason; the next run completes the work."""

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "data/history/x.part")

    with monkeypatch.context() as patch:
        patch.setattr("volspike.history.download.Downloader._receive", fail)
        assert_refused(history(volspike, server, *PERIOD), USAGE, "No space left on device", "x.part")
    assert history(volspike, server, *PERIOD).status == 0


def test_the_environment_names_the_mirror(
    server: ArchiveServer, tmp_path: Path, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``HISTORY_BASE_URL`` replaces the address of the venue."""
    monkeypatch.setenv("HISTORY_BASE_URL", server.url)
    assert volspike("history", "binance", "BTC-USDT", *PERIOD, "--out", "h").status == 0
    assert (tmp_path / "h" / "binance" / "BTC-USDT" / "manifest.json").is_file()


def test_days_of_coinbase_come_over_rest(tmp_path: Path, volspike: Run) -> None:
    """Each day is one tape; missing trades are gaps of the history; a second run requests nothing."""
    trades = [tick for tick in market(3_000, step_ns=60 * SECOND_NS) if tick.trade_id not in {500, 501}]
    exchange = Exchange(trades)
    options = ("--from", "2023-11-14", "--to", "2023-11-16", "--rate", 1000)
    with served(exchange) as url:
        outcome = volspike("history", "coinbase", "BTC-USD", *options, "--base-url", url)
        assert outcome.status == 0, outcome.err
        requests = len(exchange.queries)
        again = volspike("history", "coinbase", "BTC-USD", *options, "--base-url", url)
        assert len(exchange.queries) == requests
    folder = tmp_path / "data/history/coinbase/BTC-USD"
    end = int(datetime(2023, 11, 16, tzinfo=UTC).timestamp()) * SECOND_NS
    assert read_all(folder).trade_id.tolist() == [tick.trade_id for tick in trades if tick.time < end]
    assert [(gap.lost, gap.cause) for gap in Ledger.read(folder)] == [(2, "history")]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".ndjson", ".parquet", ".parquet"]
    assert again.out.startswith("nothing to download: 2 days of BTC-USD")
