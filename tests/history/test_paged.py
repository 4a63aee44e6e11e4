"""Days of trades over REST: one tape per day, complete after interruptions, with the manifest of a folder."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import httpx
import pytest

from tests.feeds.rest_venues import Venue
from tests.feeds.rest_venues import client_of as venue_client
from tests.feeds.rest_venues import market_of as venue_market
from tests.history.trades_exchange import Exchange, client_of, market
from tests.tape.strategies import assert_same, read_all
from volspike.errors import UsageError
from volspike.history.archives import days_between
from volspike.history.manifest import read_manifest
from volspike.history.paged import PAGED_VENUES, collect_pages, missing_days
from volspike.market import SECOND_NS, Cause
from volspike.tape.ledger import Ledger

DAYS = list(days_between(date(2023, 11, 14), date(2023, 11, 17)))
END = 1_700_179_200 * SECOND_NS
COINBASE = PAGED_VENUES["coinbase"]


@pytest.fixture
def exchange() -> Exchange:
    """Three days of trades, one every five minutes, from the evening of the first day; some are missing."""
    return Exchange([tick for tick in market(900, step_ns=300 * SECOND_NS) if tick.trade_id not in {100, 101, 310}])


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_each_day_is_a_tape_and_missing_ids_are_gaps(exchange: Exchange, tmp_path: Path) -> None:
    """The tapes have all trades of the days, the ledger each missing id once, the manifest every day."""
    with client_of(exchange) as client:
        result = collect_pages(client, COINBASE, "BTC-USD", DAYS, tmp_path)
    wanted = [tick for tick in exchange.trades if tick.time < END]
    assert_same(read_all(result.folder), wanted)
    assert (result.folder, result.rows, result.days) == (tmp_path / "coinbase" / "BTC-USD", len(wanted), 3)
    assert [(gap.lost, gap.cause) for gap in Ledger.read(result.folder)] == [(2, Cause.HISTORY), (1, Cause.HISTORY)]
    manifest = read_manifest(result.folder)
    assert manifest is not None
    assert [record.first for record in manifest.files] == DAYS
    assert manifest.files[0].first_id == 1
    assert {record.verified for record in manifest.files} == {"trade ids"}


def test_a_second_run_requests_nothing_and_a_longer_one_the_new_days(exchange: Exchange, tmp_path: Path) -> None:
    """Days that are there are not requested again."""
    with client_of(exchange) as client:
        collect_pages(client, COINBASE, "BTC-USD", DAYS[:2], tmp_path)
        requests = len(exchange.queries)
        again = collect_pages(client, COINBASE, "BTC-USD", DAYS[:2], tmp_path)
        assert (again.days, again.already_there, len(exchange.queries)) == (0, 2, requests)
        assert missing_days(COINBASE, "BTC-USD", DAYS, tmp_path) == DAYS[2:]
        assert collect_pages(client, COINBASE, "BTC-USD", DAYS, tmp_path).days == 1


class _Killed(BaseException):
    """The end of a process."""


def test_a_run_that_ends_at_any_request_continues_to_the_same_files(exchange: Exchange, tmp_path: Path) -> None:
    """An interruption at every request, one after the other, leads to the files of an undisturbed run."""
    with client_of(exchange) as client:
        collect_pages(client, COINBASE, "BTC-USD", DAYS, tmp_path / "calm")
    total = len(exchange.queries)
    for number in range(0, total, 3):
        folder = tmp_path / f"rough-{number}"
        exchange.queries.clear()
        exchange.faults = {number: httpx.ReadError("killed")}

        def end(_seconds: float) -> None:
            raise _Killed

        client = client_of(exchange)
        client._rest._sleep = end
        client._rest._interval = 0.0
        with pytest.raises(_Killed):
            collect_pages(client, COINBASE, "BTC-USD", DAYS, folder)
        exchange.faults = {}
        with client_of(exchange) as second:
            collect_pages(second, COINBASE, "BTC-USD", DAYS, folder)
        assert snapshot(folder) == snapshot(tmp_path / "calm")


def test_a_day_without_a_trade_is_done(tmp_path: Path) -> None:
    """No tape is written, and the day is not requested again."""
    exchange = Exchange(market(10))
    days = list(days_between(date(2023, 11, 1), date(2023, 11, 2)))
    with client_of(exchange) as client:
        result = collect_pages(client, COINBASE, "BTC-USD", days, tmp_path)
    assert (result.rows, missing_days(COINBASE, "BTC-USD", days, tmp_path)) == (0, [])
    assert list(result.folder.glob("*.parquet")) == []


def test_days_of_kraken_have_its_venue(tmp_path: Path) -> None:
    """The tapes of Kraken carry ``kraken:BTC-USD`` in their rows and the venue in their names."""
    start = 1_699_920_000 * SECOND_NS
    ids = [*range(1, 400), *range(405, 700)]
    trades = venue_market("kraken", ids, lambda trade_id: start + trade_id * 300 * SECOND_NS)
    with venue_client(Venue("kraken", trades)) as client:
        result = collect_pages(client, PAGED_VENUES["kraken"], "kraken:BTC-USD", DAYS[:1], tmp_path)
    ticks = read_all(result.folder)
    assert result.folder == tmp_path / "kraken" / "BTC-USD"
    assert ticks.products == ("kraken:BTC-USD",)
    assert ticks.trade_id.tolist() == [tick.trade_id for tick in trades if tick.time < start + 86_400 * SECOND_NS]
    assert [path.name for path in result.folder.glob("*.parquet")] == ["trades_kraken-BTCUSD_20231114_000000.parquet"]


def test_a_folder_of_another_source_is_refused(exchange: Exchange, tmp_path: Path) -> None:
    """A manifest of another kind of history is not overwritten."""
    with client_of(exchange) as client:
        folder = collect_pages(client, COINBASE, "BTC-USD", DAYS[:1], tmp_path).folder
        manifest = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(manifest.replace('"kind": "trades"', '"kind": "quotes"'))
        with pytest.raises(UsageError, match="use another folder"):
            collect_pages(client, COINBASE, "BTC-USD", DAYS, tmp_path)
