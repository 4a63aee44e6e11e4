"""``volspike gaps`` and ``volspike compact`` on a folder as a recorder leaves it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq

from tests.cli.command_line import USAGE, Run, assert_refused
from volspike.feeds.simulation.market import simulate_market
from volspike.market import SECOND_NS, Cause, Gap, Ticks
from volspike.tape import Ledger, read_ticks, tape_name, write_ndjson

START = 1_760_000_400 * SECOND_NS


def recorded(folder: Path) -> Path:
    """Two minutes of a market of some hours ago, and a ledger with one gap."""
    raw = folder / "raw"
    raw.mkdir()
    write_ndjson(simulate_market(["BTC-USD"], 120, 4, START), raw / tape_name("BTC-USD", START), simulated=True)
    ledger = Ledger(raw)
    gap = Gap(start=START, end=START + 5 * SECOND_NS, products=("BTC-USD",), cause=Cause.SEQUENCE, lost=12)
    ledger.add(gap)
    assert ledger.flush()
    return raw


def test_gaps_are_listed_and_counted(volspike: Run, tmp_path: Path) -> None:
    """The ledger's gaps are a table for people and an object for programs."""
    recorded(tmp_path)
    shown = volspike("gaps", "--tape", "raw")
    assert shown.status == 0
    assert "sequence" in shown.out
    assert "1 gaps, 5.000 s, 12 messages lost" in shown.out
    listed = json.loads(volspike("gaps", "--tape", "raw", "--json").out)
    assert [(gap["cause"], gap["lost"]) for gap in listed["gaps"]] == [("sequence", 12)]
    named = json.loads(volspike("gaps", "--tape", "raw", "--json", "--product", "coinbase:btc-usd").out)
    assert named["gaps"] == listed["gaps"]
    assert json.loads(volspike("gaps", "--tape", "raw", "--json", "--product", "ETH-USD").out)["gaps"] == []


def test_a_recording_that_shows_no_loss_is_not_complete(volspike: Run, tmp_path: Path) -> None:
    """A span in which no loss can be noticed is named, and is neither a gap nor a reason to doubt a row."""
    raw = recorded(tmp_path)
    ledger = Ledger(raw)
    for start, seconds in ((START, 60), (START + 90 * SECOND_NS, 0)):
        ledger.add(
            Gap(
                start=start,
                end=start + seconds * SECOND_NS,
                products=("BTC-USD",),
                cause=Cause.UNVERIFIABLE,
                detail="no loss can be noticed",
                verifiable=False,
            )
        )
    assert ledger.flush()
    shown = volspike("gaps", "--tape", "raw")
    assert "1 known gaps, 5.000 s, 12 messages lost" in shown.out
    said = " ".join(shown.err.split())
    assert said.count("no loss can be noticed; the recording may lack data") == 2
    assert "its end is unknown" in said
    listed = json.loads(volspike("gaps", "--tape", "raw", "--json").out)
    assert [len(listed["gaps"]), len(listed["unverifiable"])] == [1, 2]
    later = json.loads(volspike("gaps", "--tape", "raw", "--json", "--since", "2026-01-01T00:00:00Z").out)
    assert [len(later["gaps"]), len(later["unverifiable"])] == [0, 1]
    volspike("replay", "--raw", "raw", "--out", "f.parquet", "--windows", "10", "--feature-set", "core")
    whole = pq.read_table(tmp_path / "f.parquet")["is_whole"].to_pylist()
    assert whole[-1]
    assert whole.count(False) < len(whole) / 2


def test_gaps_of_no_folder_are_refused(volspike: Run) -> None:
    """A folder that is not there, or an instant that is none, is one line."""
    assert_refused(volspike("gaps", "--tape", "nowhere"), USAGE, "nowhere")
    assert_refused(volspike("gaps", "--tape", ".", "--since", "noon"), USAGE, "noon")


def test_rows_after_a_gap_of_the_ledger_are_not_whole(volspike: Run, tmp_path: Path) -> None:
    """Replay reads the ledger in the tape's folder."""
    recorded(tmp_path)
    outcome = volspike("replay", "--raw", "raw", "--out", "f.parquet", "--windows", "10", "--feature-set", "core")
    assert outcome.status == 0
    whole = pq.read_table(tmp_path / "f.parquet")["is_whole"].to_pylist()
    assert whole[0]
    assert not all(whole)
    assert whole[-1]


def test_compacting_changes_the_form_and_no_tick(volspike: Run, tmp_path: Path) -> None:
    """An hour that is over becomes Parquet, its NDJSON goes, and every tick is there."""
    raw = recorded(tmp_path)
    before = Ticks.join(list(read_ticks(raw)))
    for path in raw.iterdir():  # as files that were not written since then
        os.utime(path, ns=(START, START))
    outcome = volspike("compact", "--tape", "raw")
    assert outcome.status == 0, outcome.err
    assert [path.suffix for path in sorted(raw.iterdir()) if path.name.startswith("ticks")] == [".parquet"]
    after = Ticks.join(list(read_ticks(raw)))
    assert [column.tobytes() for _, column in before.columns()] == [column.tobytes() for _, column in after.columns()]


def test_compacting_deletes_tapes_older_than_the_days(volspike: Run, tmp_path: Path) -> None:
    """The JSON names what was deleted and counts what was compacted."""
    raw = recorded(tmp_path)
    tape, old = raw / tape_name("BTC-USD", START), raw / tape_name("BTC-USD", START - 40 * 86_400 * SECOND_NS)
    old.write_bytes(tape.read_bytes())
    for path in (tape, old):
        os.utime(path, ns=(START, START))
    told = json.loads(volspike("compact", "--tape", "raw", "--keep-days", "30", "--remove-later", "--json").out)
    assert (told["hours"], told["deleted"], told["notes"]) == (1, [old.name], [])
    assert tape.exists()
    assert not old.exists()
    assert_refused(volspike("compact", "--tape", "raw", "--keep-days", "nan"), USAGE, "--keep-days")


def test_compacting_nothing_is_told(volspike: Run, tmp_path: Path) -> None:
    """A folder that is not there is refused."""
    assert_refused(volspike("compact", "--tape", "nowhere"), USAGE, "nowhere")
