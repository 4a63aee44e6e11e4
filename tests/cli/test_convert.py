"""``volspike convert``: a tape in another form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED


def test_there_and_back_is_the_same_tape(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """NDJSON to Parquet to NDJSON gives the file back byte for byte, marked as simulated all the way."""
    count = len(tape.read_bytes().splitlines())
    for source, target in (("tape.ndjson", "new/b.parquet"), ("new/b.parquet", "c.ndjson")):
        outcome = volspike("convert", "--raw", source, "--out", target)
        assert outcome == (0, f"{SIMULATED}\n{count:,} ticks → {target}\n", "")
    assert (tmp_path / "c.ndjson").read_bytes() == tape.read_bytes()


def test_damaged_lines_are_told(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Damaged lines are counted and rejected as in a replay."""
    tape.write_bytes(b"not json\n" + tape.read_bytes())
    outcome = volspike("convert", "--raw", tape.name, "--out", "b.parquet")
    assert outcome.status == 0
    assert "warning: tape.ndjson:1: " in outcome.err
    assert (tmp_path / "tape.rejected.ndjson").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--raw nowhere.ndjson --out b.parquet", USAGE, ["no such tape: nowhere.ndjson"]),
        ("--raw empty.ndjson --out b.parquet", DATA, ["empty.ndjson", "record a tape first"]),
        ("--raw tape.ndjson --out b.csv", USAGE, ["b.csv", "a tape's name ends in .ndjson"]),
        ("--raw tape.ndjson --out tape.ndjson", USAGE, ["tape.ndjson is one of the sources", "another target"]),
        ("--raw tape.ndjson --out empty.ndjson/b.parquet", USAGE, ["empty.ndjson/b.parquet", "cannot be written"]),
        ("--raw tape.ndjson --out folder.ndjson", USAGE, ["folder.ndjson", "Is a directory"]),
    ],
)
def test_what_cannot_be_converted_is_refused(
    arguments: str, status: int, told: list[str], tape: Path, tmp_path: Path, volspike: Run
) -> None:
    """Which file, why and what to do, in one line; an older tape stays as it was."""
    (tmp_path / "empty.ndjson").touch()
    (tmp_path / "b.parquet").write_bytes(b"older")
    (tmp_path / "folder.ndjson").mkdir()
    with untouched(tmp_path):
        outcome = volspike("convert", *arguments.split())
    assert_refused(outcome, status, *told)
