"""``volspike backfill``: trades of the past, from the exchange into a tape."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Outcome, Run, assert_refused, untouched
from tests.feeds.rest_venues import PRODUCTS, Venue, market_of
from tests.history.trades_exchange import NOON, Answer, Exchange, market, served
from tests.tape.strategies import assert_same, read_all
from volspike.market import SECOND_NS, Cause, Gap
from volspike.tape.ledger import Ledger

HOUR = ("--from", "2023-11-14T22:13:20Z", "--to", "2023-11-14T23:13:20Z")
TAPE = "trades_BTCUSD_20231114_221320.parquet"


@pytest.fixture
def exchange() -> Exchange:
    """Two hours of trades, one a minute."""
    return Exchange(market(120, step_ns=60 * SECOND_NS))


@pytest.fixture
def url(exchange: Exchange) -> Iterator[str]:
    """Where the exchange is served."""
    with served(exchange) as address:
        yield address


def backfill(volspike: Run, url: str, *arguments: object) -> Outcome:
    return volspike("backfill", "--url", url, "--rate", 1000, *arguments)


def test_an_hour_is_fetched_once(exchange: Exchange, url: str, tmp_path: Path, volspike: Run) -> None:
    """The tape contains the hour's trades; a second run requests nothing and says so."""
    first = backfill(volspike, url, *HOUR, "--out", "raw")
    told = f"60 trades of BTC-USD from 2023-11-14T22:13:20Z to 2023-11-14T23:13:20Z → raw/{TAPE}"
    assert first == (0, told + "\n", "")
    assert_same(read_all(tmp_path / "raw"), exchange.trades[:60])
    asked = len(exchange.queries)
    assert backfill(volspike, url, *HOUR, "--out", "raw") == (0, told + " (already there)\n", "")
    assert len(exchange.queries) == asked


def test_the_environment_names_the_exchange(
    url: str, tmp_path: Path, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``--url`` the address is that of ``COINBASE_REST_URL``; the folder is data/raw."""
    monkeypatch.setenv("COINBASE_REST_URL", url)
    assert volspike("backfill", "--rate", 1000, *HOUR).status == 0
    assert (tmp_path / "data" / "raw" / TAPE).is_file()


def test_what_the_exchange_lacks_or_repeats_is_told(
    exchange: Exchange, url: str, tmp_path: Path, volspike: Run
) -> None:
    """Holes and repetitions are warnings on standard error; the trades that are there are on the tape."""
    exchange.trades = [tick for tick in exchange.trades if tick.trade_id not in {7, *range(20, 34, 2)}]
    exchange.repeated = frozenset({3})
    outcome = backfill(volspike, url, *HOUR, "--out", ".")
    assert outcome.status == 0
    assert outcome.out.startswith("52 trades of BTC-USD")
    assert (
        "warning: BTC-USD: the exchange has no trades 7 to 7, between 2023-11-14T22:18:20Z and 2023-11-14T22:20:20Z"
        in outcome.err
    )
    assert "3 more gaps" in outcome.err
    assert "1 duplicate trades were dropped" in outcome.err


def test_an_hour_without_trades_is_no_error(url: str, tmp_path: Path, volspike: Run) -> None:
    """Where nothing was traded the command says so and writes no tape."""
    outcome = backfill(volspike, url, "--from", "2023-11-14T20:00:00Z", "--to", "2023-11-14T21:00:00Z", "--out", ".")
    assert outcome == (0, "no trade of BTC-USD from 2023-11-14T20:00:00Z to 2023-11-14T21:00:00Z\n", "")
    assert list(tmp_path.glob("*.parquet")) == []


def test_the_gaps_of_a_ledger_are_closed(exchange: Exchange, url: str, tmp_path: Path, volspike: Run) -> None:
    """``--gaps`` fetches the trades of each gap, for the requested products."""
    ledger = Ledger(tmp_path)
    for minute in (10, 40):
        start = NOON + minute * 60 * SECOND_NS
        ledger.add(Gap(start=start, end=start + 90 * SECOND_NS, products=("BTC-USD",), cause=Cause.SILENCE))
    ledger.add(Gap(start=NOON, end=NOON, products=("DOGE-USD",), cause=Cause.SILENCE))
    assert ledger.flush()
    outcome = backfill(volspike, url, "--gaps", ".", "--pair", "BTC-USD", "--out", "raw")
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("2 trades of BTC-USD") == 2
    assert_same(read_all(tmp_path / "raw"), [*exchange.trades[10:12], *exchange.trades[40:42]])


@pytest.mark.parametrize("venue", ["binance", "kraken"])
def test_gaps_of_other_venues_are_closed(venue: str, tmp_path: Path, volspike: Run) -> None:
    """Each gap is downloaded from its own venue; a venue without trades by id is named, and its gaps stay."""
    product = PRODUCTS[venue]
    rest = Venue(venue, market_of(venue, range(1, 7201), lambda number: NOON + number * SECOND_NS))
    ledger = Ledger(tmp_path)
    start = NOON + 600 * SECOND_NS
    ledger.add(Gap(start=start, end=start + 60 * SECOND_NS, products=(product,), cause=Cause.SEQUENCE, lost=59))
    ledger.add(Gap(start=start, end=start + SECOND_NS, products=("okx:BTC-USDT",), cause=Cause.SEQUENCE, lost=1))
    assert ledger.flush()
    with served(rest) as address:
        outcome = volspike("backfill", f"--{venue}-url", address, "--rate", 1000, "--gaps", ".", "--out", ".")
    assert outcome.status == 0, outcome.err
    assert f"62 trades of {product}" in outcome.out
    assert "gaps of okx:BTC-USDT stay: the venue has no public trades by trade id" in outcome.err
    assert_same(read_all(tmp_path), rest.trades[598:660])
    assert len(Ledger.read(tmp_path)) == 2


def test_a_folder_without_gaps_needs_nothing(url: str, volspike: Run) -> None:
    """A recording without losses is reported as complete."""
    assert backfill(volspike, url, "--gaps", ".") == (0, "no gap in .: nothing to download\n", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", ["--from and --to"]),
        ("--from 2023-11-14T22:13:20Z", ["--from and --to"]),
        ("--from noon --to 2023-11-14T22:13:20Z", ["--from: ", "noon"]),
        ("--from 2023-11-14T22:13:20Z --to 2023-11-14T22:13:20Z", ["start before it ends"]),
        ("--from 2023-11-14T22:13:20Z --to 2200-01-01T00:00:00Z", ["ten seconds ago"]),
        ("--from 2023-11-14 --to 2023-11-15", ["--from: ", "2023-11-14"]),
        ("--gaps . --from 2023-11-14T22:13:20Z", ["remove --from and --to"]),
        ("--from 2023-11-14T00:00:00Z --to 2023-11-15T00:00:00Z --pair DOGE-USD", ["no product DOGE-USD", "NotFound"]),
        ("--from 2023-11-14T00:00:00Z --to 2023-11-15T00:00:00Z --rate 0", ["rate", "above 0"]),
        ("--from 2023-11-14T00:00:00Z --to 2023-11-15T00:00:00Z --url nowhere", ["nowhere", "invalid address"]),
        ("--from 2023-11-14T00:00:00Z --to 2023-11-15T00:00:00Z --out file/raw", ["file/raw"]),
    ],
)
def test_what_cannot_be_fetched_is_refused(
    arguments: str, told: list[str], url: str, tmp_path: Path, volspike: Run
) -> None:
    """What is wrong with the call, in one line; nothing is written."""
    (tmp_path / "file").touch()
    with untouched(tmp_path):
        outcome = backfill(volspike, url, *arguments.split())
    assert_refused(outcome, USAGE, *told)


def test_no_network_is_one_line(tmp_path: Path, volspike: Run) -> None:
    """An unreachable exchange is reported with its address and what to do, and nothing is written."""
    with socket.socket() as bound, untouched(tmp_path):
        bound.bind(("127.0.0.1", 0))  # not listening: connections are refused
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        outcome = backfill(volspike, address, *HOUR)
    assert_refused(outcome, DATA, f"cannot reach {address}", "try again")


def test_a_page_that_cannot_be_read_is_located(exchange: Exchange, url: str, tmp_path: Path, volspike: Run) -> None:
    """Damage in an answer ends the run with the place of the fault; the next run goes on."""
    exchange.faults[0] = Answer(200, b'[{"trade_id":1,"price":"x"}]')
    assert_refused(backfill(volspike, url, *HOUR), DATA, "MalformedTick", url, "$[0].price")
    assert backfill(volspike, url, *HOUR).status == 0
