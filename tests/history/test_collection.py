"""The history of a product from a local archive: complete, verified, resumable, with every loss in the ledger."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.history.archive_server import (
    ArchiveServer,
    Fault,
    agg_trades,
    file_of,
    gzipped,
    midnight_ms,
    open_archive,
    time_ns,
    zipped,
)
from tests.tape.strategies import assert_same, read_all
from volspike.errors import DataError, UnreadableFile, UsageError
from volspike.history.archives import ARCHIVES, days_between
from volspike.history.collection import DOWNLOADS, HistoryRequest, HistoryResult, collect_history, plan_download
from volspike.history.conversion import HISTORY_KEY
from volspike.history.manifest import read_manifest
from volspike.market import Cause, Side
from volspike.tape.ledger import Ledger

FIRST = date(2025, 10, 3)
LATER = time_ns(date(2026, 6, 1))
PER_DAY = 500


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    monkeypatch.setattr("volspike.history.download.FIRST_WAIT_S", 0.001)


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    """An empty archive."""
    with open_archive(ArchiveServer()) as opened:
        yield opened


def day_at(place: int) -> date:
    """A day of the archive, from 0."""
    return date.fromordinal(FIRST.toordinal() + place)


def fill(server: ArchiveServer, days: int = 3, *, without: tuple[int, ...] = ()) -> None:
    """Serves ``days`` of aggTrades with consecutive ids; the days of ``without`` are not there."""
    for place in range(days):
        if place not in without:
            ids = range(place * PER_DAY, (place + 1) * PER_DAY)
            file = file_of("binance", "binance:BTC-USDT", "aggTrades", day_at(place))
            server.add(file, zipped(agg_trades(ids, day_at(place))))


def request_of(server: ArchiveServer, out: Path, days: int = 3, **changes: object) -> HistoryRequest:
    """A request for the first days of the archive."""
    facts = {
        "archive": ARCHIVES["binance"],
        "product_id": "binance:BTC-USDT",
        "kind": "aggTrades",
        "days": list(days_between(FIRST, day_at(days))),
        "out": out,
        "url": server.url,
        "now_ns": lambda: LATER,
    }
    return HistoryRequest(**{**facts, **changes})  # type: ignore[arg-type]


def collect(server: ArchiveServer, out: Path, days: int = 3, **changes: object) -> HistoryResult:
    """Collects the first days of the archive."""
    return collect_history(request_of(server, out, days, **changes))


def day_path(place: int) -> str:
    """The path of a day's file."""
    return file_of("binance", "binance:BTC-USDT", "aggTrades", day_at(place)).path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, without locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_every_trade_is_on_the_tapes_with_its_taker(server: ArchiveServer, tmp_path: Path) -> None:
    """One tape per day has all trades with price, size, taker's side, id, and the time as time of receipt."""
    fill(server)
    result = collect(server, tmp_path)
    ticks = read_all(result.folder)
    assert result.folder == tmp_path / "binance" / "BTC-USDT"
    assert (result.files, result.rows, result.gaps) == (3, 3 * PER_DAY, ())
    assert ticks.trade_id.tolist() == list(range(3 * PER_DAY))
    assert ticks.products == ("binance:BTC-USDT",)
    assert ticks.time[0] == ticks.received[0] == time_ns(FIRST)
    assert np.array_equal(ticks.side, np.where(ticks.trade_id % 2, Side.SELL, Side.BUY))
    assert (ticks.price[3], ticks.last_size[3]) == (60_003.5, 0.40)
    assert len(list(result.folder.glob("*.parquet"))) == 3
    assert not (result.folder / DOWNLOADS).exists()


def test_a_second_run_downloads_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    """Everything is there: no request, and no file changes."""
    fill(server)
    first = collect(server, tmp_path)
    before, requests = snapshot(tmp_path), len(server.requests)
    again = collect(server, tmp_path)
    assert (again.files, again.already_there) == (0, 3)
    assert snapshot(tmp_path) == before
    assert len(server.requests) == requests
    assert again.manifest == first.manifest


def test_later_days_are_added_and_removed_tapes_replaced(server: ArchiveServer, tmp_path: Path) -> None:
    """A run over a longer range downloads the new days only, and a day whose tape was deleted."""
    fill(server)
    folder = collect(server, tmp_path, 2).folder
    (folder / "BTC-USDT-aggTrades-2025-10-03.parquet").unlink()
    server.requests.clear()
    assert collect(server, tmp_path).files == 2
    assert sorted(server.downloads()) == [day_path(0), day_path(2)]
    assert len(read_all(folder)) == 3 * PER_DAY


def test_the_manifest_states_origin_hash_and_content(server: ArchiveServer, tmp_path: Path) -> None:
    """Each file has its address, SHA-256, how it was verified, rows, ids and times."""
    fill(server, 1)
    folder = collect(server, tmp_path, 1).folder
    manifest = read_manifest(folder)
    assert manifest is not None
    (record,) = manifest.files
    assert record.url == server.url + day_path(0)
    assert record.sha256 == server.files[day_path(0) + ".CHECKSUM"].split()[0].decode()
    assert record.verified == "SHA-256 of the venue"
    assert (record.rows, record.first_id, record.last_id) == (PER_DAY, 0, PER_DAY - 1)
    assert (record.first_time, record.bytes) == ("2025-10-03T00:00:00Z", len(server.files[day_path(0)]))
    assert (manifest.size_unit, manifest.has_consecutive_ids) == ("base currency", True)
    assert "terms" in manifest.terms
    stored = json.loads(pq.read_metadata(folder / record.tape).metadata[HISTORY_KEY])
    assert (stored["sha256"], stored["size_unit"]) == (record.sha256, "base currency")


def test_a_day_that_the_venue_lacks_is_a_gap(server: ArchiveServer, tmp_path: Path) -> None:
    """The gap lies between the trades around the missing day and counts its trades; the tapes are complete."""
    fill(server, without=(1,))
    result = collect(server, tmp_path)
    assert result.missing == (day_at(1),)
    (gap,) = Ledger.read(result.folder)
    ticks = read_all(result.folder)
    assert (gap.start, gap.end) == (ticks.time[PER_DAY - 1], ticks.time[PER_DAY])
    assert (gap.cause, gap.lost, gap.products) == (Cause.HISTORY, PER_DAY, ("binance:BTC-USDT",))
    assert "2025-10-04" in gap.detail


def test_a_missing_day_that_appears_later_closes_its_gap(server: ArchiveServer, tmp_path: Path) -> None:
    """The next run downloads it, and the ledger has no gap any more."""
    fill(server, without=(1,))
    folder = collect(server, tmp_path).folder
    fill(server)
    assert collect(server, tmp_path).files == 1
    assert not (folder / "gaps.ndjson").exists()
    assert len(read_all(folder)) == 3 * PER_DAY


def test_days_missing_at_the_edges_are_gaps_of_full_days(server: ArchiveServer, tmp_path: Path) -> None:
    """Before the first and after the last file a gap lasts from or to midnight."""
    fill(server, 4, without=(0, 3))
    result = collect(server, tmp_path, 4)
    first, last = Ledger.read(result.folder)
    ticks = read_all(result.folder)
    assert (first.start, first.end, first.lost) == (time_ns(day_at(0)), ticks.time[0], -1)
    assert (last.start, last.end) == (ticks.time[-1], time_ns(day_at(4)))


def test_a_day_that_is_not_published_yet_is_no_gap(server: ArchiveServer, tmp_path: Path) -> None:
    """The last days are reported as unpublished, and the next run downloads them."""
    fill(server, 3, without=(2,))
    soon = time_ns(day_at(3)) + 3_600 * 10**9
    result = collect(server, tmp_path, now_ns=lambda: soon)
    assert (result.unpublished, result.missing, result.gaps) == ((day_at(2),), (), ())
    fill(server)
    assert collect(server, tmp_path, now_ns=lambda: soon).rows == PER_DAY


def test_missing_ids_within_and_between_days_are_gaps(server: ArchiveServer, tmp_path: Path) -> None:
    """Each jump of the ids is one gap with its number of trades and the times of the trades around it."""
    days = [[*range(5, 100), *range(103, 200)], [*range(210, 300)]]
    for place, ids in enumerate(days):
        file = file_of("binance", "binance:BTC-USDT", "aggTrades", day_at(place))
        server.add(file, zipped(agg_trades(ids, day_at(place))))
    result = collect(server, tmp_path, 2)
    gaps = Ledger.read(result.folder)
    assert [gap.lost for gap in gaps] == [3, 10]
    time_of = dict(zip(read_all(result.folder).trade_id.tolist(), read_all(result.folder).time.tolist(), strict=True))
    assert [(gap.start, gap.end) for gap in gaps] == [(time_of[99], time_of[103]), (time_of[199], time_of[210])]


def test_a_month_is_one_file(server: ArchiveServer, tmp_path: Path) -> None:
    """A complete month is downloaded as the venue's file of the month."""
    first, end = date(2025, 2, 1), date(2025, 3, 1)
    file = file_of("binance", "binance:BTC-USDT", "aggTrades", first, end)
    server.add(file, zipped(agg_trades(range(900), first, days=28)))
    request = dataclasses.replace(request_of(server, tmp_path), days=list(days_between(first, end)))
    assert collect_history(request).rows == 900
    assert server.downloads() == [file.path]


def test_a_month_that_the_venue_lacks_is_taken_by_the_day(server: ArchiveServer, tmp_path: Path) -> None:
    """Days of a month without a file of its own are downloaded one by one."""
    first, end = date(2025, 2, 1), date(2025, 3, 1)
    days = list(days_between(first, end))
    for place, day in enumerate(days):
        ids = range(place * 10, place * 10 + 10)
        server.add(file_of("binance", "binance:BTC-USDT", "aggTrades", day), zipped(agg_trades(ids, day)))
    result = collect_history(dataclasses.replace(request_of(server, tmp_path), days=days))
    assert (result.files, result.rows, result.gaps) == (28, 280, ())


def test_a_wrong_checksum_downloads_the_file_again(server: ArchiveServer, tmp_path: Path) -> None:
    """A file that was damaged on its way is downloaded again."""
    fill(server, 1)
    good = server.files[day_path(0)]
    server.files[day_path(0)] = good[:-100] + bytes(100)
    restore = Fault(at_request=lambda: server.files.__setitem__(day_path(0), good))
    server.faults[day_path(0)] = [Fault(), restore]
    assert collect(server, tmp_path, 1).rows == PER_DAY
    assert len(server.downloads()) == 2


def test_a_file_that_stays_damaged_is_an_error_with_its_address(server: ArchiveServer, tmp_path: Path) -> None:
    """After three downloads the error names the file; neither tape nor manifest exists for it."""
    fill(server, 1)
    server.files[day_path(0)] = zipped(agg_trades(range(3), day_at(0)))
    with pytest.raises(DataError, match=r"2025-10-03\.zip is damaged in 3 downloads \(SHA-256"):
        collect(server, tmp_path, 1)
    assert list(tmp_path.rglob("*.parquet")) == list(tmp_path.rglob("manifest.json")) == []


@pytest.mark.parametrize("cut", [30, 2_000])
def test_a_truncated_file_without_a_checksum_is_found_by_its_own_check(
    server: ArchiveServer, tmp_path: Path, cut: int
) -> None:
    """A zip archive that ends early, as published, is an error and never a short tape."""
    fill(server, 1)
    server.files[day_path(0)] = server.files[day_path(0)][:-cut]
    del server.files[day_path(0) + ".CHECKSUM"]
    with pytest.raises(DataError, match="is damaged in 3 downloads"):
        collect(server, tmp_path, 1)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_truncated_gzip_file_is_an_error(server: ArchiveServer, tmp_path: Path) -> None:
    """A gzip file without its trailer is never a short tape."""
    text = "id,timestamp,price,volume,side\n" + "".join(
        f"{i},{midnight_ms(FIRST) + i},60000.5,0.1,buy\n" for i in range(1, 5_000)
    )
    server.add(file_of("bybit", "bybit:BTC-USDT", "trades", FIRST), gzipped(text)[:-9])
    with pytest.raises(DataError, match="is damaged in 3 downloads"):
        collect(server, tmp_path, 1, archive=ARCHIVES["bybit"], product_id="bybit:BTC-USDT", kind="trades")
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_checksum_that_is_none_is_an_error(server: ArchiveServer, tmp_path: Path) -> None:
    """A page of HTML instead of a SHA-256 is named, with its address."""
    fill(server, 1)
    server.files[day_path(0) + ".CHECKSUM"] = b"<html>maintenance</html>"
    with pytest.raises(DataError, match=r"CHECKSUM: no SHA-256, it begins with '<html>"):
        collect(server, tmp_path, 1)


def test_a_header_that_appears_one_day_and_a_changed_unit_are_read(server: ArchiveServer, tmp_path: Path) -> None:
    """A day in ms without a header, then one in µs with a header, give the same kind of ticks."""
    for place, (unit, header) in enumerate([(1, False), (1_000, True)]):
        ids = range(place * 50, place * 50 + 50)
        text = agg_trades(ids, day_at(place), unit=unit, header=header)
        server.add(file_of("binance", "binance:BTC-USDT", "aggTrades", day_at(place)), zipped(text))
    ticks = read_all(collect(server, tmp_path, 2).folder)
    assert ticks.time[[0, 50]].tolist() == [time_ns(day_at(0)), time_ns(day_at(1))]
    assert ticks.trade_id.tolist() == list(range(100))


def test_other_columns_are_an_error_with_the_name_of_the_file(server: ArchiveServer, tmp_path: Path) -> None:
    """A file of another kind is refused; it is not downloaded again."""
    file = file_of("binance", "binance:BTC-USDT", "aggTrades", FIRST)
    server.add(file, zipped("a,b\nc,d\n"))
    with pytest.raises(UnreadableFile, match=r"BTCUSDT-aggTrades-2025-10-03\.zip"):
        collect(server, tmp_path, 1)
    assert len(server.downloads()) == 1


def test_an_unknown_product_is_an_error(server: ArchiveServer, tmp_path: Path) -> None:
    """If the venue has none of the files, the product's name is probably wrong."""
    with pytest.raises(DataError, match="no file of binance:BTC-USDT on any of the requested days"):
        collect(server, tmp_path)
    assert list(tmp_path.rglob("manifest.json")) == []


def test_another_kind_in_the_folder_is_refused(server: ArchiveServer, tmp_path: Path) -> None:
    """Trades and aggTrades of the same days would count each trade twice."""
    fill(server, 1)
    collect(server, tmp_path, 1)
    with pytest.raises(UsageError, match="holds aggTrades"):
        collect(server, tmp_path, 1, kind="trades")


def test_days_of_tardis_need_a_key_before_any_request(server: ArchiveServer, tmp_path: Path) -> None:
    """Without a key all days but the first of a month are refused by name; with one, it is sent."""
    tardis: dict[str, Any] = {"archive": ARCHIVES["tardis"], "product_id": "binance:BTC-USDT", "kind": "trades"}
    with pytest.raises(UsageError, match=r"needs a key for 2025-10-03, 2025-10-04, 2025-10-05: set TARDIS_API_KEY"):
        collect(server, tmp_path, **tardis)
    assert server.requests == []
    start = midnight_ms(FIRST) * 1000
    text = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(
        f"binance,BTCUSDT,{start + i},{start + i + 77},{i},{'sell' if i % 2 else 'buy'},60000.5,0.1\n" for i in range(9)
    )
    server.add(file_of("tardis", "binance:BTC-USDT", "trades", FIRST), gzipped(text))
    result = collect(server, tmp_path, 1, **tardis, key="secret")
    ticks = read_all(result.folder)
    assert (ticks.received - ticks.time).tolist() == [77_000] * 9
    assert set(server.keys) == {"Bearer secret"}
    assert not result.manifest.has_consecutive_ids
    assert "not verifiable" in result.manifest.completeness
    assert b"secret" not in b"".join(snapshot(tmp_path).values())


def test_an_empty_file_is_a_day_without_trades(server: ArchiveServer, tmp_path: Path) -> None:
    """Tardis publishes an empty gzip file for a day without data; it gives no tape and is not requested again."""
    product = "binance:BTC-USDT"
    tardis: dict[str, Any] = {"archive": ARCHIVES["tardis"], "product_id": product, "kind": "trades", "key": "k"}
    server.add(file_of("tardis", "binance:BTC-USDT", "trades", FIRST), gzipped(""))
    result = collect(server, tmp_path, 1, **tardis)
    assert (result.files, result.rows) == (1, 0)
    assert collect(server, tmp_path, 1, **tardis).files == 0
    assert list(tmp_path.rglob("*.parquet")) == []


def test_sizes_in_contracts_are_labelled(server: ArchiveServer, tmp_path: Path) -> None:
    """Sizes of COIN-M stay numbers of contracts, and manifest and tape state the unit."""
    file = file_of("binance-cm", "binance-cm:BTC-USD-PERP", "aggTrades", FIRST)
    server.add(
        file, zipped(f"7,60000.5,12,9,9,{midnight_ms(FIRST)},true\n8,60000.5,3,10,10,{midnight_ms(FIRST)},false\n")
    )
    result = collect(server, tmp_path, 1, archive=ARCHIVES["binance-cm"], product_id="binance-cm:BTC-USD-PERP")
    assert result.manifest.size_unit == "contracts"
    assert read_all(result.folder).last_size.tolist() == [12.0, 3.0]
    (tape,) = result.folder.glob("*.parquet")
    assert json.loads(pq.read_metadata(tape).metadata[HISTORY_KEY])["size_unit"] == "contracts"


@pytest.mark.parametrize("source", ["bybit-linear", "bybit-inverse"])
def test_derivatives_of_bybit_have_their_own_venue(server: ArchiveServer, tmp_path: Path, source: str) -> None:
    """Seconds with fractions are exact, ids are no numbers, and completeness is not verifiable."""
    product_id = f"{source}:BTC-USD" + ("T" if source == "bybit-linear" else "")
    symbol = "BTCUSD" + ("T" if source == "bybit-linear" else "")
    start = midnight_ms(FIRST) // 1000
    text = (
        "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
        f"{start}.1234,{symbol},Buy,5,60000.5,PlusTick,0b6c-1,1,2,3\n"
        f"{start + 1}.9999,{symbol},Sell,7,60000.0,MinusTick,0b6c-2,1,2,3\n"
    )
    server.add(file_of(source, product_id, "trades", FIRST), gzipped(text))
    result = collect(server, tmp_path, 1, archive=ARCHIVES[source], product_id=product_id, kind="trades")
    ticks = read_all(result.folder)
    assert ticks.products == (product_id,)
    assert (ticks.time - time_ns(FIRST)).tolist() == [123_400_000, 1_999_900_000]
    assert ticks.side.tolist() == [Side.BUY, Side.SELL]
    assert result.manifest.size_unit == ("base currency" if source == "bybit-linear" else "USD")
    assert not result.manifest.has_consecutive_ids


def test_ids_of_okx_are_checked(server: ArchiveServer, tmp_path: Path) -> None:
    """A day of OKX with a bilingual header; a missing id is a gap."""
    start = midnight_ms(FIRST)
    text = "trade_id/撮合id,side/交易方向,size/数量,price/价格,created_time/成交时间\n" + "".join(
        f"{i},{'BUY' if i % 2 else 'SELL'},0.5,60000.1,{start + i}\n" for i in (1, 2, 4)
    )
    server.add(file_of("okx", "okx:BTC-USDT", "trades", FIRST), zipped(text))
    result = collect(server, tmp_path, 1, archive=ARCHIVES["okx"], product_id="okx:BTC-USDT", kind="trades")
    assert [gap.lost for gap in Ledger.read(result.folder)] == [1]
    assert read_all(result.folder).side.tolist() == [Side.BUY, Side.SELL, Side.SELL]


def test_the_plan_has_the_sizes_and_downloads_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    """HEAD requests give the sizes; a file that is not there has none; nothing is written."""
    fill(server, without=(1,))
    planned = plan_download(request_of(server, tmp_path))
    assert [each.bytes for each in planned] == [len(server.files[day_path(0)]), None, len(server.files[day_path(2)])]
    assert {method for method, _, _ in server.requests} == {"HEAD"}
    assert list(tmp_path.iterdir()) == []


def test_downloads_are_kept_on_request(server: ArchiveServer, tmp_path: Path) -> None:
    """With ``keep`` the files of the venue remain next to the tapes, and readers of tapes skip them."""
    fill(server, 1)
    folder = collect(server, tmp_path, 1, keep=True).folder
    (kept,) = (folder / DOWNLOADS).iterdir()
    assert kept.read_bytes() == server.files[day_path(0)]
    assert len(read_all(folder)) == PER_DAY


def test_busy_servers_and_lost_connections_change_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    """Refusals, resets and short answers give the same files as an undisturbed run."""
    fill(server)
    collect(server, tmp_path / "calm")
    for place in range(3):
        server.faults[day_path(place)] = [Fault(status=429), Fault(cut_after=1_000), Fault(resets=True)]
    collect(server, tmp_path / "rough")
    assert snapshot(tmp_path / "rough") == snapshot(tmp_path / "calm")


RUN = """
import sys
from datetime import date
from pathlib import Path
from volspike.history.archives import ARCHIVES, days_between
from volspike.history.collection import HistoryRequest, collect_history
days = list(days_between(date(2025, 10, 3), date(2025, 10, 6)))
collect_history(HistoryRequest(ARCHIVES["binance"], "binance:BTC-USDT", "aggTrades", days, Path(sys.argv[1]),
    sys.argv[2], parallel=2))
"""


def test_a_run_that_is_killed_at_every_request_ends_as_an_uninterrupted_one(
    server: ArchiveServer, tmp_path: Path
) -> None:
    """Each run is killed at one request later than the one before; the last one completes the same files."""
    fill(server, without=(1,))
    collect(server, tmp_path / "calm")
    kills = 0
    for number in range(40):
        running: list[subprocess.Popen[bytes]] = []
        server.requests.clear()

        def kill(number: int = number, running: list[subprocess.Popen[bytes]] = running) -> None:
            if len(server.requests) > number and running:
                os.kill(running[0].pid, signal.SIGKILL)

        server.faults.clear()
        for path in [day_path(place) + ending for place in range(3) for ending in ("", ".CHECKSUM")]:
            server.faults[path] = [Fault(at_request=kill, cut_after=20_000)]
        arguments = [sys.executable, "-c", RUN, str(tmp_path / "rough"), server.url]
        running.append(subprocess.Popen(arguments, stderr=subprocess.PIPE))  # noqa: S603  our own program
        _, err = running[0].communicate(timeout=60)
        if running[0].returncode == 0:
            break
        assert running[0].returncode == -signal.SIGKILL, err.decode()
        kills += 1
    server.faults.clear()
    assert kills >= 3
    assert snapshot(tmp_path / "rough") == snapshot(tmp_path / "calm")


def test_tapes_of_two_runs_are_the_same(server: ArchiveServer, tmp_path: Path) -> None:
    """The same days in one run or in two give the same trades."""
    fill(server)
    one = collect(server, tmp_path / "one").folder
    collect(server, tmp_path / "two", 1)
    two = collect(server, tmp_path / "two").folder
    assert_same(read_all(one), read_all(two))
