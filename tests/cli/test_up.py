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
        ("--source simulator --alert-threshold BTC-USD=2", "above 0 and up to 1, got 2"),
        (
            "--source simulator --alert-threshold SOL-USD=0.5",
            "unknown product SOL-USD; accepted are BTC-USD, coinbase:*",
        ),
        ("--source simulator --pair okx:BTC-USDT --alert-threshold BTC-USD=1", "accepted are okx:BTC-USDT, okx:*"),
        ("--source simulator --quiet-hours 22-7", "--quiet-hours '22-7': use a form such as 22:00-07:00"),
        ("--source simulator --alert nothing", "not an Apprise URL"),
    ],
)
def test_a_bad_source_is_refused_without_an_address(arguments: str, told: str, volspike: Run) -> None:
    """One line with the reason, exit status 2, and no address on standard output."""
    assert_refused(volspike("up", "--port", "0", *arguments.split()), USAGE, told)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("QUIET_HOURS", "22:00-07:00; mon-fri 12:00-13:00 Europe/Nowhere", "no time zone 'Europe/Nowhere'"),
        ("ALERT_THRESHOLDS", "0.5 BTC-USD=3", "--alert-threshold 'BTC-USD=3'"),
        ("ALERT_THRESHOLDS", "BTC-USD=0.5  BTC-USD=0.6", "BTC-USD already has the threshold 0.5"),
    ],
)
def test_alerting_is_read_from_the_environment(
    name: str, value: str, told: str, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable holds several values, the last of which is wrong here."""
    monkeypatch.setenv(name, value)
    assert_refused(volspike("up", "--port", "0", "--source", "simulator"), USAGE, told)


def test_alerting_is_read_from_the_file(tmp_path: Path, volspike: Run) -> None:
    """The table alerts of the file; an unknown key is refused."""
    for line, told in (
        ('quiet_hours = ["22:00-22:00"]', "start and end must differ"),
        ('thresholds = ["okx:*=0.5"]', "unknown product okx:*"),
        ('quite_hours = ["22:00-07:00"]', "unknown field `quite_hours`"),
    ):
        (tmp_path / "s.toml").write_text(f"[alerts]\n{line}\n")
        assert_refused(volspike("up", "--port", "0", "--source", "simulator", "--config", "s.toml"), USAGE, told)


def test_a_tape_without_a_tick_is_refused_without_an_address(tmp_path: Path, volspike: Run) -> None:
    """A file without a tick is bad data."""
    (tmp_path / "empty.ndjson").write_text("")
    assert_refused(volspike("up", "--port", "0", "--source", "tape:empty.ndjson"), DATA, "empty")
