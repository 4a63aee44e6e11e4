"""``volspike ingest`` and ``volspike up`` where nothing can be recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("ingest", "--source", "simulator", "--minutes", 0.01, "--out"), "--out"),
        (("up", "--port", 0, "--tape"), "--tape"),
    ],
)
def test_folder_that_is_not_writable_is_refused_at_start(
    volspike: Run, tmp_path: Path, words: tuple[object, ...], option: str
) -> None:
    """One line that names option and folder, before anything is opened."""
    (tmp_path / "file").write_text("a file and no folder")
    told = volspike(*words, "file/tapes")
    assert_refused(told, USAGE, option, "file/tapes", "cannot write there", "name another folder")


def test_writable_folder_is_left_empty_by_the_check(volspike: Run, tmp_path: Path) -> None:
    """The check leaves no file behind; a recording without ticks leaves none either."""
    volspike("ingest", "--source", "simulator", "--minutes", 0.0001, "--out", "tapes")
    assert not [path for path in (tmp_path / "tapes").iterdir() if path.name.startswith("tmp")]


@pytest.mark.parametrize("saves", [True, False])
def test_ingest_without_a_tick_exits_with_3(volspike: Run, monkeypatch: pytest.MonkeyPatch, saves: bool) -> None:
    """An exchange that cannot be reached is an error in the end, not a successful recording of nothing."""
    monkeypatch.setenv("COINBASE_WS_URL", "ws://127.0.0.1:1")
    told = volspike("ingest", "--source", "coinbase", "--minutes", 0.01, "--save-disk" if saves else "--no-save-disk")
    assert told.status == DATA
    assert "no tick was " + ("recorded in data/raw" if saves else "received") in told.err
    assert "cannot connect" in told.err
    assert "volspike doctor" in told.err
    assert "0 ticks in 0 frames" in told.out
