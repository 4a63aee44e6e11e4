"""Files of venues → tapes: missing ids in any order of the rows, and the memory that this takes."""

from __future__ import annotations

import threading
import zipfile
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history.archive_server import agg_trades, file_of, zipped
from tests.tape.strategies import read_all
from volspike.errors import UnreadableFile
from volspike.history import conversion
from volspike.history.conversion import MOST_HOLES, DamagedDownload, IdCheck, convert_file
from volspike.history.download import DownloadStopped
from volspike.market import MISSING_ID, Kind, Side, Ticks, parse_time

DAY = date(2025, 10, 4)
FILE = file_of("binance", "binance:BTC-USDT", "aggTrades", DAY)


def ticks_of(ids: list[int]) -> Ticks:
    """Trades whose time is a second per id."""
    count = len(ids)
    missing = np.full(count, np.nan)
    time = np.array(ids, np.int64) * 10**9
    return Ticks(
        products=("binance:BTC-USDT",),
        time=time,
        received=time,
        kind=np.full(count, Kind.TRADE, np.int8),
        product=np.zeros(count, np.int32),
        price=np.ones(count),
        best_bid=missing,
        best_ask=missing,
        bid_size=missing,
        ask_size=missing,
        last_size=np.ones(count),
        side=np.full(count, Side.BUY, np.int8),
        trade_id=np.array(ids, np.int64),
        sequence=np.full(count, MISSING_ID, np.int64),
    )


def check(ids: list[int], cuts: list[int] | None = None) -> IdCheck:
    """The check of ids that come in parts, cut at places."""
    found = IdCheck()
    edges = [0, *sorted(set(cuts or [])), len(ids)]
    for start, end in pairwise(edges):
        if end > start:
            found.add(ticks_of(ids[start:end]))
    return found


@given(
    ids=st.sets(st.integers(0, 60), min_size=1, max_size=50),
    cuts=st.lists(st.integers(0, 50), max_size=5),
    is_descending=st.booleans(),
)
def test_missing_ids_are_those_between_the_ones_that_are_there(
    ids: set[int], cuts: list[int], is_descending: bool
) -> None:
    """However the rows are cut into parts, ascending or descending, each run of missing ids is one hole."""
    ordered = sorted(ids)
    rows = ordered[::-1] if is_descending else ordered
    found = check(rows, [cut for cut in cuts if cut < len(rows)])
    expected = [(left, right, right - left - 1) for left, right in pairwise(ordered) if right - left > 1]
    holes = [(parse_time(hole.start) // 10**9, parse_time(hole.end) // 10**9, hole.lost) for hole in found.holes()]
    assert holes == expected
    assert (found.first_id, found.last_id, found.rows) == (ordered[0], ordered[-1], len(ids))


def test_repeated_ids_are_no_holes() -> None:
    """A trade that is listed twice neither adds nor hides a missing one."""
    assert [hole.lost for hole in check([1, 2, 2, 3, 5, 5, 6]).holes()] == [1]


def test_irregular_order_gives_one_hole_over_the_file() -> None:
    """Where ids go back and forth, the number of missing ones is exact, and their place is the complete span."""
    assert check([1, 3, 2, 4, 5]).holes() == []
    (hole,) = check([1, 4, 2, 8, 6]).holes()
    assert (hole.lost, parse_time(hole.start), parse_time(hole.end)) == (3, 10**9, 8 * 10**9)


def test_very_many_holes_are_merged_and_still_cover_each() -> None:
    """The manifest stays small; no missing trade is outside a hole."""
    ids = list(range(0, 40 * MOST_HOLES, 4))
    found = check(ids, list(range(0, len(ids), 1_000)))
    holes = found.holes()
    assert len(holes) <= MOST_HOLES
    assert sum(hole.lost for hole in holes) == 3 * (len(ids) - 1)
    assert (parse_time(holes[0].start), parse_time(holes[-1].end)) == (0, ids[-1] * 10**9)


def test_a_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks give the same tape and the same holes as one."""
    ids = [*range(1_000), *range(1_007, 3_000)]
    (tmp_path / "a.zip").write_bytes(zipped(agg_trades(ids, DAY)))
    one = convert_file(FILE, tmp_path / "a.zip", tmp_path / "one.parquet", {})
    monkeypatch.setattr(conversion, "BLOCK_BYTES", 4_096)
    many = convert_file(FILE, tmp_path / "a.zip", tmp_path / "many.parquet", {})
    assert one == many
    assert (one.rows, [hole.lost for hole in one.missing]) == (2_993, [7])
    assert read_all(tmp_path / "many.parquet").trade_id.tolist() == ids


def test_damaged_rows_are_counted_and_their_ids_are_holes(tmp_path: Path) -> None:
    """A row that cannot be read is a rejected row and a missing trade."""
    text = agg_trades(range(10), DAY).replace("\n4,", "\n4x,")
    (tmp_path / "a.zip").write_bytes(zipped(text))
    found = convert_file(FILE, tmp_path / "a.zip", tmp_path / "a.parquet", {})
    assert (found.rows, found.rejected, [hole.lost for hole in found.missing]) == (9, 1, [1])


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    """A venue publishes one file per archive."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "1\n")
        archive.writestr("b.csv", "1\n")
    with pytest.raises(UnreadableFile, match="expected one file in the archive, found 2"):
        convert_file(FILE, tmp_path / "a.zip", tmp_path / "a.parquet", {})


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>", zipped("1,2\n")[:20]])
def test_no_archive_at_all_is_a_damaged_download(tmp_path: Path, content: bytes) -> None:
    """A page of HTML in place of the archive is downloaded again, never converted."""
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DamagedDownload):
        convert_file(FILE, tmp_path / "a.zip", tmp_path / "a.parquet", {})
    assert not (tmp_path / "a.parquet").exists()


def test_a_wrong_crc_is_a_damaged_download(tmp_path: Path) -> None:
    """Changed text with the old CRC leaves no tape."""
    packed = bytearray(zipped(agg_trades(range(2_000), DAY)))
    at = packed.find(b"PK\x01\x02") + 16
    packed[at] ^= 1
    (tmp_path / "a.zip").write_bytes(bytes(packed))
    with pytest.raises(DamagedDownload, match="CRC"):
        convert_file(FILE, tmp_path / "a.zip", tmp_path / "a.parquet", {})
    assert not (tmp_path / "a.parquet").exists()


def test_a_conversion_can_be_stopped(tmp_path: Path) -> None:
    """The check runs for each part; what it raises leaves no tape."""
    (tmp_path / "a.zip").write_bytes(zipped(agg_trades(range(100), DAY)))
    stop = threading.Event()
    stop.set()

    def check_stop() -> None:
        if stop.is_set():
            raise DownloadStopped

    with pytest.raises(DownloadStopped):
        convert_file(FILE, tmp_path / "a.zip", tmp_path / "a.parquet", {}, check_stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
