"""``volspike up``: what it refuses before it announces an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--source nyse", "unknown --source 'nyse'"),
        ("--source tape:nowhere.ndjson", "no such tape: nowhere.ndjson"),
        ("--source tape:", "name a tape"),
        ("--source tape:nowhere.ndjson --speed nan", "--speed must be a number of at least 0"),
    ],
)
def test_a_bad_source_is_refused_without_an_address(arguments: str, told: str, volspike: Run) -> None:
    """One line with the reason, exit status 2, and no address on standard output."""
    assert_refused(volspike("up", "--port", "0", *arguments.split()), USAGE, told)


def test_a_tape_without_a_tick_is_refused_without_an_address(tmp_path: Path, volspike: Run) -> None:
    """A file without a tick is bad data."""
    (tmp_path / "empty.ndjson").write_text("")
    assert_refused(volspike("up", "--port", "0", "--source", "tape:empty.ndjson"), DATA, "empty")
