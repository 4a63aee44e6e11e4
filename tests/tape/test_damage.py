"""Damaged lines are counted, reported and rejected; everything else is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.strategies import START, assert_same, read_all, read_with_report, tick_at, ticks
from volspike.errors import UnreadableFile
from volspike.market import Tick, Ticks, format_time
from volspike.tape import KEPT_REJECTIONS, TapeReport, read_ticks, tape_line, write_ndjson

GOOD = tape_line(tick_at(0)).rstrip(b"\n")
DAMAGED = [
    GOOD[: len(GOOD) // 2],
    GOOD[len(GOOD) // 2 :],
    GOOD + GOOD,
    GOOD[:-1] + b"}}",
    b"not json",
    b"[]",
    b"3",
    b"{}",
    b"\xff\xfe\x00",
    GOOD.replace(b"BTC-USD", b"BTC-\xff"),
    GOOD.replace(b'"high_24h":null', b'"high_24h":"\xe2\x82"'),
    GOOD.replace(b'"price":"100"', b'"price":null'),
    GOOD.replace(b'"price":"100"', b'"price":""'),
    GOOD.replace(b'"price":"100"', b'"price":"0"'),
    GOOD.replace(b'"price":"100"', b'"price":"-5"'),
    GOOD.replace(b'"price":"100"', b'"price":"nan"'),
    GOOD.replace(b'"price":"100"', b'"price":"inf"'),
    GOOD.replace(b'"price":"100",', b""),
    GOOD.replace(b'"product_id":"BTC-USD",', b""),
    GOOD.replace(b"BTC-USD", b""),
    GOOD.replace(format_time(START).encode(), b"yesterday"),
    GOOD.replace(format_time(START).encode(), b"9999-01-01T00:00:00Z"),
    GOOD.replace(b"{", b"[" * 5000, 1),
    GOOD.replace(b"0.25", b"-1"),
    b'{"type":"ticker","product_id":"BTC-USD","price":"1"}',
    b'{"ts":"soon","raw":"{}"}',
    b'{"ts":1.5,"raw":"{torn"}',
]
SHAPES = st.lists(st.one_of(st.none(), st.sampled_from(DAMAGED)), min_size=1, max_size=30)


def lines_with(shapes: list[bytes | None]) -> tuple[list[bytes], list[Tick]]:
    """Lines of which those that are None are good, one tick each."""
    lines, told = [], []
    for number, shape in enumerate([None, *shapes]):
        if shape is None:
            told.append(tick_at(number))
            lines.append(tape_line(told[-1]).rstrip(b"\n"))
        else:
            lines.append(shape)
    return lines, told


@given(shapes=SHAPES, block_bytes=st.integers(1, 4000), line_end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_only_damaged_lines_are_lost(
    shapes: list[bytes | None], block_bytes: int, line_end: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever damage and block boundaries are, exactly those lines are lost, and reported by number."""
    tape = tmp_path_factory.mktemp("tape") / "a.ndjson"
    lines, told = lines_with(shapes)
    tape.write_bytes(line_end.join(lines))
    whole, report = read_with_report(tape, block_bytes=block_bytes)
    assert_same(whole, told)
    step = line_end.count(b"\n")
    damaged = [(number * step + 1, line) for number, line in enumerate(lines) if line in DAMAGED]
    assert [rejected.line for rejected in report.rejections] == [number for number, _ in damaged]
    assert (report.lines, report.ticks, report.rejected) == (len(lines), len(told), len(damaged))
    aside = tape.with_name("a.rejected.ndjson")
    kept = [json.loads(line) for line in aside.read_bytes().splitlines()] if damaged else []
    assert [(line["line"], line["text"].encode("utf-8", "surrogateescape")) for line in kept] == damaged
    assert aside.exists() == bool(damaged)


@pytest.mark.parametrize("damage", DAMAGED)
def test_each_kind_of_damage_is_told_with_a_reason(tmp_path: Path, damage: bytes) -> None:
    """Every kind of damaged line is refused with a reason of one line."""
    (tmp_path / "a.ndjson").write_bytes(GOOD + b"\n" + damage + b"\n")
    report = read_with_report(tmp_path / "a.ndjson")[1]
    assert [rejected.line for rejected in report.rejections] == [2]
    assert report.rejections[0].reason
    assert "\n" not in report.rejections[0].reason


@given(told=st.lists(ticks(), min_size=1, max_size=20))
def test_a_block_reads_as_its_lines_do(told: list[Tick], tmp_path_factory: pytest.TempPathFactory) -> None:
    """A complete block and the same lines one by one (with blank lines between them) give the same ticks."""
    folder = tmp_path_factory.mktemp("tape")
    lines = [tape_line(tick) for tick in told]
    (folder / "a.ndjson").write_bytes(b"".join(lines))
    (folder / "b.ndjson").write_bytes(b"\n".join(lines))
    assert_same(read_all(folder / "a.ndjson"), read_all(folder / "b.ndjson"))


def test_a_line_broken_in_two_costs_itself_only(tmp_path: Path) -> None:
    """An object that runs over a line end is two damaged lines, though a JSON reader would take it for one."""
    broken = GOOD.replace(b',"price"', b',\n"price"', 1)
    (tmp_path / "a.ndjson").write_bytes(GOOD + b"\n" + broken + b"\n" + GOOD + b"\n")
    whole, report = read_with_report(tmp_path / "a.ndjson")
    assert len(whole) == 2
    assert [rejected.line for rejected in report.rejections] == [2, 3]


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    """A tape saved by an editor with a byte-order mark and CRLF is read completely."""
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD + b"\r\n")
    whole, report = read_with_report(tmp_path / "a.ndjson")
    assert (len(whole), report.rejected) == (2, 0)


def test_reading_again_sets_the_same_lines_aside(tmp_path: Path) -> None:
    """The file of rejected lines does not grow, is not read by a glob, and is kept when the tape is correct again."""
    tape = tmp_path / "a.ndjson"
    tape.write_bytes(GOOD + b"\nbroken\n")
    for _ in range(2):
        assert len(read_all(str(tmp_path / "*.ndjson"))) == 1
    kept = (tmp_path / "a.rejected.ndjson").read_text()
    assert json.loads(kept) == {"file": "a.ndjson", "line": 2, "reason": json.loads(kept)["reason"], "text": "broken"}
    tape.write_bytes(GOOD + b"\n")
    read_all(tmp_path)
    assert (tmp_path / "a.rejected.ndjson").read_text() == kept
    assert len(list(tmp_path.iterdir())) == 2


def test_tapes_of_one_stem_share_their_rejected_lines(tmp_path: Path) -> None:
    """Two tapes whose rejected lines go to the same file do not overwrite each other's."""
    (tmp_path / "a.ndjson").write_bytes(GOOD + b"\nbroken\n")
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(GOOD + b"\nworse\n"))
    read_all(tmp_path)
    kept = [json.loads(line) for line in (tmp_path / "a.rejected.ndjson").read_text().splitlines()]
    assert [(line["file"], line["text"]) for line in kept] == [("a.ndjson", "broken"), ("a.ndjson.gz", "worse")]


def test_lines_that_cannot_be_set_aside_stop_nothing(tmp_path: Path) -> None:
    """Where the rejected lines cannot be written, the report says so and the tape is read."""
    (tmp_path / "a.ndjson").write_bytes(GOOD + b"\nbroken\n")
    (tmp_path / "a.rejected.ndjson.part").mkdir()
    whole, report = read_with_report(tmp_path / "a.ndjson")
    assert (len(whole), report.rejected, report.rejected_files) == (1, 1, [])
    assert "could not be written" in report.notes[0].text


def test_a_reading_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """Stopping in the middle of a damaged tape leaves no half file of rejected lines."""
    (tmp_path / "a.ndjson").write_bytes(b"broken\n" + (GOOD + b"\n") * 50)
    parts = read_ticks(tmp_path / "a.ndjson", chunk=1, block_bytes=1000)
    next(parts)
    parts.close()  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ndjson"]


def test_a_report_holds_the_first_rejections_and_counts_the_rest(tmp_path: Path) -> None:
    """However many lines are damaged, the report stays small."""
    (tmp_path / "a.ndjson").write_bytes(GOOD + b"\n" + b"broken\n" * 500)
    report = read_with_report(tmp_path / "a.ndjson")[1]
    assert (report.rejected, len(report.rejections)) == (500, KEPT_REJECTIONS)
    assert len((tmp_path / "a.rejected.ndjson").read_bytes().splitlines()) == 500


@pytest.mark.parametrize("ending", [".zst", ".gz"])
def test_a_truncated_archive_gives_what_it_still_holds(tmp_path: Path, ending: str) -> None:
    """Of a compressed tape that was cut off, the lines before the cut are read, and the cut is noted."""
    told = [tick_at(received, 100.0 + received % 977 / 7) for received in range(20_000)]
    whole, cut = tmp_path / f"a.ndjson{ending}", tmp_path / f"b.ndjson{ending}"
    write_ndjson([Ticks.of(told)], whole)
    cut.write_bytes(whole.read_bytes()[:-50_000])
    read, report = read_with_report(cut)
    assert 0 < len(read) < len(told)
    assert_same(read, told[: len(read)])
    assert "cut off" in report.notes[0].text
    assert report.rejected <= 1  # the line that the cut went through


@pytest.mark.parametrize("ending", [".zst", ".gz"])
def test_archives_laid_end_to_end_are_one_tape(tmp_path: Path, ending: str) -> None:
    """A file of several compressed frames, as a recorder leaves that was started again, reads to its end."""
    pieces = []
    for received in range(3):
        write_ndjson([Ticks.of([tick_at(received)])], tmp_path / f"piece{ending}")
        pieces.append((tmp_path / f"piece{ending}").read_bytes())
    (tmp_path / f"a.ndjson{ending}").write_bytes(b"".join(pieces))
    assert_same(read_all(tmp_path / f"a.ndjson{ending}"), [tick_at(received) for received in range(3)])


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst"])
def test_what_is_no_tape_at_all_is_told(tmp_path: Path, name: str) -> None:
    """A file without one tick is unreadable, says what was found, and leaves no file of rejected lines."""
    (tmp_path / name).write_bytes(b"timestamp,price\n1,2\n")
    with pytest.raises(UnreadableFile, match=rf"{name}.*(empty|no tick)"):
        read_all(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_tape_among_others_is_noted(tmp_path: Path) -> None:
    """An empty file is an error by itself, and a note if another tape has ticks."""
    (tmp_path / "a.ndjson").touch()
    with pytest.raises(UnreadableFile, match="empty"):
        read_all(tmp_path / "a.ndjson")
    (tmp_path / "b.ndjson").write_bytes(GOOD)
    whole, report = read_with_report(tmp_path)
    assert len(whole) == 1
    assert [(Path(note.file).name, note.text) for note in report.notes] == [("a.ndjson", "is empty")]


def test_progress_reaches_the_size_of_the_files(tmp_path: Path) -> None:
    """Bytes read grow to the bytes on disk, compressed or not."""
    for name in ("a.ndjson", "b.ndjson.zst", "c.ndjson.gz"):
        write_ndjson([Ticks.of([tick_at(received) for received in range(500)])], tmp_path / name)
    report = TapeReport()
    read_all(tmp_path, report=report, block_bytes=2000)
    assert report.bytes_read == report.total_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_arrow_reads_zstandard() -> None:
    """Zstandard tapes rest on the Arrow build that is installed."""
    assert pa.Codec.is_available("zstd")
