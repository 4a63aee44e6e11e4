"""Real recordings are read completely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tape.strategies import assert_same, read_all, read_with_report
from volspike.market import Kind, Side, Ticks
from volspike.tape import TapeReport, convert, read_tape_name, read_ticks, tapes_of

pytestmark = pytest.mark.shared_data


def counts(path: Path) -> tuple[Ticks, dict[str, int]]:
    """What a file holds, with its folder left as it is."""
    report = TapeReport()
    ticks = Ticks.join(list(read_ticks(path, report=report, keep_rejected=False)))
    assert report.rejected == 0
    assert report.notes == []
    return ticks, dict(report.ignored)


def test_the_coinbase_tapes_read_in_time_order(shared_data: Path) -> None:
    """All 40551 ticks of 15 tapes, none refused, in order of receipt, with best sizes and no trade sizes."""
    ticks, report = read_with_report(shared_data / "coinbase")
    assert (len(report.files), report.lines, len(ticks), report.rejected) == (15, 40551, 40551, 0)
    assert (np.diff(ticks.received) >= 0).all()
    assert ticks.products == ("BTC-USD",)
    assert report.kinds == {Kind.TICKER}
    assert not report.has_sizes
    assert not np.isnan(ticks.bid_size).any()


def test_the_names_of_the_coinbase_tapes_tell_their_start(shared_data: Path) -> None:
    """A recorded tape's name is its product and, to a few seconds, the time of its first tick."""
    for path in tapes_of(shared_data / "coinbase"):
        name = read_tape_name(path)
        first = next(read_ticks(path, chunk=1))
        assert name is not None
        assert name.product_id == "BTC-USD"
        assert abs(int(first.received[0]) - name.started) < 60e9


def test_every_bitflyer_trade_reads(shared_data: Path) -> None:
    """746756 trades with the taker's side and a size, and no quotes."""
    ticks, ignored = counts(shared_data / "bitflyer")
    assert (len(ticks), ticks.products, ignored) == (746_756, ("bitflyer:BTC-JPY",), {})
    assert (ticks.kind == Kind.TRADE).all()
    sides = {side: int((ticks.side == side).sum()) for side in Side}
    assert sides == {Side.SELL: 379_159, Side.UNKNOWN: 149, Side.BUY: 367_448}  # an opening auction has no taker
    assert np.isnan([ticks.best_bid, ticks.best_ask, ticks.bid_size, ticks.ask_size]).all()
    assert (ticks.last_size > 0).all()
    assert (ticks.trade_id > 0).all()


def test_recorded_exchange_frames_read(shared_data: Path) -> None:
    """A recorder's verbatim Exchange frames: 5996 complete tickers and 4 acks."""
    ticks, ignored = counts(shared_data / "protocol" / "exchange_ticker_202511.ndjson")
    assert (len(ticks), ignored) == (5996, {"subscriptions": 4})
    assert (ticks.sequence > 0).all()
    assert (ticks.received != ticks.time).any()


def test_recorded_envelopes_read(shared_data: Path) -> None:
    """Bare Advanced Trade frames: 3108 tickers at the exchange's time."""
    ticks, ignored = counts(shared_data / "protocol" / "advanced_trade_envelopes_20260404.ndjson")
    assert (len(ticks), ignored) == (3108, {})
    assert (ticks.received == ticks.time).all()


def test_a_recorded_session_reads(shared_data: Path) -> None:
    """A compressed session of Advanced Trade: new flow is read, everything else counted by its kind."""
    ticks, ignored = counts(shared_data / "protocol" / "advanced_trade_20260809.jsonl.zst")
    assert len(ticks) == 239
    assert ignored == {
        "l2_data": 775,
        "history": 200,
        "heartbeat": 25,
        "candles": 6,
        "subscriptions": 5,
        "header": 1,
        "http": 1,
        "connect": 1,
        "send": 5,
    }
    assert set(ticks.products) == {"BTC-USD", "ETH-USD"}


@pytest.mark.parametrize("target", ["a.parquet", "a.ndjson.zst"])
@pytest.mark.parametrize("source", ["coinbase", "protocol/exchange_ticker_202511.ndjson"])
def test_recordings_survive_conversion(shared_data: Path, tmp_path: Path, source: str, target: str) -> None:
    """A recording in another form holds the same ticks to the last bit."""
    convert(shared_data / source, tmp_path / target, keep_rejected=False)
    assert_same(read_all(tmp_path / target), read_all(shared_data / source, keep_rejected=False))


def test_a_recording_reads_the_same_in_any_pieces(shared_data: Path) -> None:
    """Reading in chunks gives the same ticks as reading at once, and no chunk is larger than requested."""
    parts = list(read_ticks(shared_data / "coinbase", chunk=1000, keep_rejected=False, block_bytes=100_000))
    assert {len(part) for part in parts[:-1]} == {1000}
    assert_same(Ticks.join(parts), read_all(shared_data / "coinbase", keep_rejected=False))
