"""``volspike simulate``: a tape that is marked as simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED
from volspike.market import parse_time
from volspike.tape import TapeReport, read_ticks


@pytest.mark.parametrize("name", ["a.ndjson", "deep/er/a.ndjson.zst", "a.ndjson.gz", "a.parquet"])
def test_a_tape_in_every_form(name: str, tmp_path: Path, volspike: Run) -> None:
    """The tape has the printed number of ticks, the requested products and duration, and the mark."""
    outcome = volspike(
        "simulate", "--out", name, "--minutes", "2", "--pair", "BTC-USD", "SOL-USD", "--start", "2020-01-01T00:00:00Z"
    )
    report = TapeReport()
    ticks = list(read_ticks(tmp_path / name, report=report))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"{SIMULATED}\n{report.ticks:,} ticks of BTC-USD, SOL-USD over 2 min → {name}\n"
    assert report.simulated
    assert report.products == ["BTC-USD", "SOL-USD"]
    start = parse_time("2020-01-01T00:00:00Z")
    assert start <= ticks[0].time[0] < ticks[-1].time[-1] < start + 120 * 10**9


def test_the_seed_makes_the_market(tmp_path: Path, volspike: Run) -> None:
    """The same seed gives the same tape, another one another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        volspike("simulate", "--out", f"{name}.ndjson", "--minutes", "1", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.ndjson").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--out a.ndjson --minutes 0", ["--minutes must be at least 1", "0"]),
        ("--out a.ndjson --seed -1", ["--seed at least 0", "-1"]),
        ("--out a.ndjson --pair=", ["--pair must name products"]),
        ("--out a.ndjson --start yesterday", ["--start", "'yesterday'"]),
        ("--out a.ndjson --start 2262-04-11T00:00:00Z --minutes 1440", ["1,440 minutes", "end after", "start earlier"]),
        ("--out a.csv", ["a.csv", "a tape's name ends in", ".parquet"]),
        ("--out a.ndjson/b.ndjson", ["cannot write a.ndjson/b.ndjson"]),
        ("--out folder.ndjson", ["cannot write folder.ndjson", "Is a directory"]),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments: str, told: list[str], tmp_path: Path, volspike: Run) -> None:
    """The request and the valid values on one line; an existing tape is unchanged."""
    (tmp_path / "a.ndjson").write_text("older")
    (tmp_path / "folder.ndjson").mkdir()
    with untouched(tmp_path):
        outcome = volspike("simulate", *arguments.split())
    assert_refused(outcome, USAGE, *told)
