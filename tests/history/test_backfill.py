"""Tests of the backfill: complete tapes without duplicates, for any range and after any interruption."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history.trades_exchange import LATER, NOON, Answer, Exchange, client_of, market, served, trade_at
from tests.tape.strategies import assert_same, read_all
from volspike.errors import DataError, UnreadableFile, UsageError
from volspike.history.backfill import BackfillResult, Span, TradeIndex, backfill, plan_spans
from volspike.market import SECOND_NS, Cause, Gap, Tick
from volspike.tape import TAPE_SCHEMA

HOUR = Span("BTC-USD", NOON, NOON + 3600 * SECOND_NS)


def run(exchange: Exchange, span: Span, folder: Path, block: int = 1000) -> BackfillResult:
    with client_of(exchange) as client:
        return backfill(client, span, folder, block=block, now=lambda: LATER)


def trades_in(trades: list[Tick], span: Span) -> list[Tick]:
    return [tick for tick in trades if span.start <= tick.time < span.end]


@st.composite
def markets(draw: st.DrawFn) -> list[Tick]:
    """Trades with ids that may be missing and times that may be shared."""
    steps = draw(st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 30]), st.integers(0, 5)), max_size=40))
    trade_id, seconds = draw(st.sampled_from([0, 1, 5_000_000])), 0
    trades: list[Tick] = []
    for ids, later in steps:
        trades.append(trade_at(trade_id, NOON + seconds * SECOND_NS))
        trade_id, seconds = trade_id + ids, seconds + later
    return trades


@given(markets(), st.integers(-3, 120), st.integers(1, 120), st.integers(1, 12), st.integers(1, 12), st.data())
def test_any_range_is_complete(
    trades: list[Tick], start: int, seconds: int, block: int, longest_page: int, data: st.DataObject
) -> None:
    """Whatever the range, the pages, the missing and the repeated ids: the tape holds the exchange's trades, once."""
    span = Span("BTC-USD", NOON + start * SECOND_NS, NOON + (start + seconds) * SECOND_NS)
    ids = [tick.trade_id for tick in trades]
    repeated = frozenset(data.draw(st.sets(st.sampled_from(ids), max_size=3))) if ids else frozenset()
    expected = trades_in(trades, span)
    with TemporaryDirectory() as folder:
        exchange = Exchange(trades, longest_page=longest_page + 1, repeated=repeated)
        result = run(exchange, span, Path(folder), block)
        assert result.trades == len(expected)
        if result.tape is None:
            assert expected == []
        else:
            assert_same(read_all(result.tape), expected)


@given(markets(), st.integers(0, 120), st.integers(1, 120))
def test_every_hole_is_named(trades: list[Tick], start: int, seconds: int) -> None:
    """Ids missing in the range, or between it and its neighbours, are gaps with the trades around them."""
    span = Span("BTC-USD", NOON + start * SECOND_NS, NOON + (start + seconds) * SECOND_NS)
    expected = [
        (left.time, right.time, right.trade_id - left.trade_id - 1)
        for left, right in pairwise(trades)
        if right.trade_id > left.trade_id + 1 and left.time < span.end and right.time >= span.start
    ]
    with TemporaryDirectory() as folder:
        holes = run(Exchange(trades), span, Path(folder), block=7).holes
    assert [(hole.start, hole.end, hole.lost) for hole in holes] == expected
    assert all(hole.cause == Cause.SEQUENCE and hole.products == ("BTC-USD",) for hole in holes)


def test_a_hole_and_a_duplicate_are_named(tmp_path: Path) -> None:
    """Missing ids are reported as gaps; duplicates are counted and kept once."""
    trades = [tick for tick in market(20) if tick.trade_id not in {7, 8}]
    result = run(Exchange(trades, repeated=frozenset({5})), Span("BTC-USD", NOON, LATER - 10 * SECOND_NS), tmp_path)
    assert (result.trades, result.duplicates) == (18, 1)
    assert [hole.detail for hole in result.holes] == ["the exchange has no trades 7 to 8"]


def test_the_tape_is_one_of_trades(tmp_path: Path) -> None:
    """The file has the tape's schema and the name of product and start; nothing but it and the state is left."""
    trades = market(30)
    result = run(Exchange(trades), HOUR, tmp_path)
    assert result.tape == tmp_path / "trades_BTCUSD_20231114_221320.parquet"
    assert pq.read_schema(result.tape).names == TAPE_SCHEMA.names
    assert_same(read_all(tmp_path), trades_in(trades, HOUR))
    assert sorted(path.name for path in tmp_path.iterdir()) == [result.tape.name, result.tape.name + ".backfill"]


def test_the_start_is_found_without_walking_there(tmp_path: Path) -> None:
    """An hour deep in a long past costs a few single-trade pages and its own blocks, not the days since."""
    trades = market(40_000, step_ns=10 * SECOND_NS, first_id=700_000_001)
    exchange = Exchange(trades)
    start = NOON + 40_000 * SECOND_NS
    result = run(exchange, Span("BTC-USD", start, start + 30_000 * SECOND_NS), tmp_path)
    assert result.trades == 3_000
    assert sum(query["limit"] > 1 for query in exchange.queries) == 3
    assert len(exchange.queries) < 40


class Killed(Exception):
    """Simulates the end of the process: nothing in volspike catches it."""


class Mortal(Exchange):
    """An exchange that kills the client during one request."""

    dies_at: int = -1

    def answer(self, address: str) -> Answer:
        if len(self.queries) == self.dies_at:
            raise Killed
        return super().answer(address)


def mortal(trades: list[Tick], dies_at: int) -> Exchange:
    exchange = Mortal(trades)
    exchange.dies_at = dies_at
    return exchange


def test_it_goes_on_after_an_interruption_at_any_request(tmp_path: Path) -> None:
    """Killed at each request in turn, a second run fetches only what is not kept, and the tape is the same."""
    trades = market(50, step_ns=60 * SECOND_NS)
    uninterrupted = Exchange(trades)
    expected = run(uninterrupted, HOUR, tmp_path / "complete", block=4)
    requests = len(uninterrupted.queries)
    searching = sum(query["limit"] == 1 for query in uninterrupted.queries)
    for dies_at in range(requests):
        folder = tmp_path / str(dies_at)
        with pytest.raises(Killed):
            run(mortal(trades, dies_at), HOUR, folder, block=4)
        assert not (folder / HOUR.tape_name).exists()
        second = Exchange(trades)
        result = run(second, HOUR, folder, block=4)
        assert len(second.queries) == requests if dies_at < searching else requests - dies_at
        assert result.trades == expected.trades
        assert (folder / HOUR.tape_name).read_bytes() == (tmp_path / "complete" / HOUR.tape_name).read_bytes()


def test_it_goes_on_after_being_killed_at_every_request_of_every_run(tmp_path: Path) -> None:
    """Runs that end after each block still produce the complete tape."""
    trades = market(50, step_ns=60 * SECOND_NS)
    with pytest.raises(Killed):
        run(mortal(trades, 30), HOUR, tmp_path, block=1)
    for _ in range(100):
        try:
            result = run(mortal(trades, 1), HOUR, tmp_path, block=1)
        except Killed:
            continue
        break
    assert_same(read_all(result.tape), trades_in(trades, HOUR))


PROGRAM = """
import sys
from pathlib import Path
from volspike.feeds.rest import TradesClient
from volspike.history.backfill import Span, backfill
url, folder, start, end = sys.argv[1:]
with TradesClient(url, rate=1000) as client:
    backfill(client, Span("BTC-USD", int(start), int(end)), Path(folder), block=4)
"""


class Executioner(Exchange):
    """An exchange that kills the client process at one of its requests."""

    process: subprocess.Popen[bytes] | None = None
    kills_at: int = -1

    def answer(self, address: str) -> Answer:
        if len(self.queries) == self.kills_at and self.process is not None:
            self.process.kill()
        return super().answer(address)


def test_it_goes_on_after_kill_9(tmp_path: Path) -> None:
    """A process that is killed while it fetches leaves what the next run goes on from."""
    exchange = Executioner(market(50, step_ns=60 * SECOND_NS))
    exchange.kills_at = 16
    with served(exchange) as url:
        command = [sys.executable, "-c", PROGRAM, url, str(tmp_path), str(HOUR.start), str(HOUR.end)]
        with subprocess.Popen(command) as exchange.process:  # noqa: S603
            assert exchange.process.wait(60) == -signal.SIGKILL
        assert not (tmp_path / HOUR.tape_name).exists()
        first = [query for query in exchange.queries if query["limit"] > 1]
        exchange.queries.clear()
        exchange.kills_at = -1
        assert subprocess.run(command, check=False, timeout=60).returncode == 0  # noqa: S603
    assert 1 <= len(first) < 13
    assert 13 - len(first) <= len(exchange.queries) <= 14 - len(first)
    assert_same(read_all(tmp_path), trades_in(list(exchange.trades), HOUR))


def test_killed_between_the_last_steps_it_is_finished(tmp_path: Path) -> None:
    """If the tape exists but the state is incomplete, or trades remain, a run sends no request."""
    trades = market(50, step_ns=60 * SECOND_NS)
    state, kept = (tmp_path / (HOUR.tape_name + ending) for ending in (".backfill", ".trades"))
    saved: list[tuple[bytes, bytes]] = []
    with client_of(Exchange(trades)) as client:
        backfill(
            client,
            HOUR,
            tmp_path,
            now=lambda: LATER,
            show=lambda done, total: saved.append((state.read_bytes(), kept.read_bytes() if done else b"")),
        )
    complete, tape = state.read_bytes(), (tmp_path / HOUR.tape_name).read_bytes()
    for before in (saved[-1][0], complete):
        state.write_bytes(before)
        kept.write_bytes(saved[-1][1])
        idle = Exchange(trades)
        assert run(idle, HOUR, tmp_path).trades == 50
        assert idle.queries == []
        assert (state.read_bytes(), (tmp_path / HOUR.tape_name).read_bytes()) == (complete, tape)
        assert not kept.exists()


@pytest.mark.parametrize("torn", [b"\x00", b"half a record", b"x" * 33 * 5])
def test_what_was_being_written_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    """Bytes beyond what the state counts were never finished and are fetched again."""
    trades = market(50, step_ns=60 * SECOND_NS)
    with pytest.raises(Killed):
        run(mortal(trades, 12), HOUR, tmp_path, block=4)
    kept = tmp_path / (HOUR.tape_name + ".trades")
    kept.write_bytes(kept.read_bytes() + torn)
    assert_same(read_all(run(Exchange(trades), HOUR, tmp_path).tape), trades_in(trades, HOUR))


def test_lost_trades_are_fetched_again(tmp_path: Path) -> None:
    """If trades are missing from the file, the backfill starts again."""
    trades = market(50, step_ns=60 * SECOND_NS)
    with pytest.raises(Killed):
        run(mortal(trades, 12), HOUR, tmp_path, block=4)
    (tmp_path / (HOUR.tape_name + ".trades")).unlink()
    assert_same(read_all(run(Exchange(trades), HOUR, tmp_path).tape), trades_in(trades, HOUR))


def test_damaged_trades_are_reported(tmp_path: Path) -> None:
    """Stored trades that do not ascend are an error that names the files to remove."""
    trades = market(50, step_ns=60 * SECOND_NS)
    with pytest.raises(Killed):
        run(mortal(trades, 12), HOUR, tmp_path, block=4)
    kept = tmp_path / (HOUR.tape_name + ".trades")
    size = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[: size // 2].ljust(size, b"\x00"))
    with pytest.raises(DataError, match="do not ascend: remove"):
        run(Exchange(trades), HOUR, tmp_path)
    assert not (tmp_path / HOUR.tape_name).exists()


def test_a_complete_range_is_not_fetched_again(tmp_path: Path) -> None:
    """A second run sends no request and returns the same result; without the tape it fetches again."""
    trades = [tick for tick in market(50, step_ns=60 * SECOND_NS) if tick.trade_id != 9]
    first = run(Exchange(trades), HOUR, tmp_path)
    idle = Exchange(trades)
    again = run(idle, HOUR, tmp_path)
    assert idle.queries == []
    assert again.already_complete
    assert (again.trades, again.holes, again.tape) == (first.trades, first.holes, first.tape)
    (tmp_path / HOUR.tape_name).unlink()
    assert not run(Exchange(trades), HOUR, tmp_path).already_complete
    assert_same(read_all(tmp_path), trades_in(trades, HOUR))


@pytest.mark.parametrize("trades", [[], market(3), [trade_at(1, NOON - SECOND_NS)], [trade_at(4, LATER)]])
def test_an_empty_range_has_no_tape(trades: list[Tick], tmp_path: Path) -> None:
    """A range without trades has no tape, and a second run sends no request."""
    quiet = Span("BTC-USD", NOON + 1000, NOON + SECOND_NS)
    assert run(Exchange(trades), quiet, tmp_path).tape is None
    idle = Exchange(trades)
    assert run(idle, quiet, tmp_path).already_complete
    assert idle.queries == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".backfill"]


def test_another_range_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """An existing tape of another range is neither replaced nor used."""
    trades = market(50, step_ns=60 * SECOND_NS)
    run(Exchange(trades), HOUR, tmp_path)
    with pytest.raises(UsageError, match=r"holds BTC-USD 2023-11-14T22:13:20Z to 2023-11-14T23:13:20Z .* remove"):
        run(Exchange(trades), Span("BTC-USD", HOUR.start, HOUR.end + 1), tmp_path)
    (tmp_path / (HOUR.tape_name + ".backfill")).unlink()
    with pytest.raises(UsageError, match="already exists"):
        run(Exchange(trades), HOUR, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_an_invalid_state_is_reported(content: bytes, tmp_path: Path) -> None:
    """A state file that cannot be read is named, with what to do."""
    (tmp_path / (HOUR.tape_name + ".backfill")).write_bytes(content)
    with pytest.raises(UnreadableFile, match="remove it to start again"):
        run(Exchange(market(3)), HOUR, tmp_path)


@pytest.mark.parametrize(("start", "end"), [(NOON, NOON), (NOON, NOON - 1), (NOON, LATER), (-1, NOON)])
def test_a_range_must_be_one_and_over(start: int, end: int, tmp_path: Path) -> None:
    """Empty, reversed and too recent ranges are rejected before any request."""
    exchange = Exchange(market(3))
    with pytest.raises(UsageError):
        run(exchange, Span("BTC-USD", start, end), tmp_path / "new")
    assert exchange.queries == []
    assert not (tmp_path / "new").exists()


def test_an_unknown_product_leaves_nothing_behind(tmp_path: Path) -> None:
    """A product that the exchange does not have makes no folder and no file."""
    with pytest.raises(UsageError, match="no product DOGE-USD"):
        run(Exchange(market(3)), Span("DOGE-USD", HOUR.start, HOUR.end), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_faults_on_the_way_change_nothing(tmp_path: Path) -> None:
    """Refusals that pass, server errors, timeouts and lost connections are in no tape."""
    trades = market(50, step_ns=60 * SECOND_NS)
    faults: dict[int, Answer | httpx.TransportError] = {
        0: Answer(429, b"{}", {"retry-after": "3"}),
        3: Answer(500, b""),
        5: httpx.ReadTimeout("slow"),
        8: httpx.ConnectError("refused"),
        9: Answer(502, b"<html>"),
    }
    result = run(Exchange(trades, faults=faults), HOUR, tmp_path, block=4)
    assert_same(read_all(result.tape), trades_in(trades, HOUR))


def test_progress_is_shown(tmp_path: Path) -> None:
    """Every block moves the count of ids done towards the count of all."""
    shown: list[tuple[int, int]] = []
    with client_of(Exchange(market(10, step_ns=SECOND_NS))) as client:
        backfill(client, HOUR, tmp_path, block=4, now=lambda: LATER, show=lambda *counts: shown.append(counts))
    assert shown == [(0, 10), (4, 10), (8, 10), (10, 10)]


def test_a_shared_index_remembers(tmp_path: Path) -> None:
    """The second of two neighbouring ranges is found in fewer requests than the first."""
    exchange = Exchange(market(5_000, step_ns=SECOND_NS))
    with client_of(exchange) as client:
        index = TradeIndex(client, "BTC-USD")
        index.around(NOON + 2_000 * SECOND_NS)
        first = len(exchange.queries)
        assert index.around(NOON + 2_000 * SECOND_NS)[1] == (2_001, NOON + 2_000 * SECOND_NS)
        assert len(exchange.queries) == first
        index.around(NOON + 2_010 * SECOND_NS)
    assert len(exchange.queries) - first < first


def gap(start: float, end: float, *products: str) -> Gap:
    """A gap of seconds after noon."""
    start_ns, end_ns = NOON + int(start * 1e9), NOON + int(end * 1e9)
    return Gap(start=start_ns, end=end_ns, products=products, cause=Cause.RECONNECT)


def seconds(spans: list[Span]) -> list[tuple[str, int, int]]:
    return [(s.product_id, (s.start - NOON) // SECOND_NS, (s.end - NOON) // SECOND_NS) for s in spans]


def test_gaps_become_spans() -> None:
    """Each product's gaps are covered in full seconds with a margin, and those that meet are fetched once."""
    gaps = [gap(10.5, 12.2, "BTC-USD", "ETH-USD"), gap(13, 14, "BTC-USD"), gap(60, 60, "BTC-USD"), gap(1, 2)]
    assert seconds(plan_spans(gaps)) == [("BTC-USD", 9, 15), ("BTC-USD", 59, 61), ("ETH-USD", 9, 14)]
    assert seconds(plan_spans(gaps, ["ETH-USD"])) == [("ETH-USD", 9, 14)]


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 50)), max_size=20))
def test_spans_of_gaps_cover_all_and_share_no_name(pairs: list[tuple[float, float]]) -> None:
    """Every gap lies within one span, spans do not touch, and no two would write the same tape."""
    gaps = [gap(start, start + length, "BTC-USD") for start, length in pairs]
    spans = plan_spans(gaps)
    assert all(any(span.start <= one.start and one.end < span.end for span in spans) for one in gaps)
    assert all(left.end < right.start for left, right in pairwise(spans))
    assert len({span.tape_name for span in spans}) == len(spans)
