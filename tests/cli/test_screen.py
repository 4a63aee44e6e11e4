"""Progress on the screen: percentage and time left, on a terminal and in a pipe, and file names that are refused."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.command_line import USAGE, Run, assert_refused, run_in
from volspike.cli import screen
from volspike.progress import Step


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_from_the_share_that_is_done() -> None:
    """A quarter done in 30 s leaves 90 s, which count down until the next step."""
    clock = Clock()
    operation = screen.Operation("training", clock)
    clock.now += 4
    assert (operation.text, operation.time_text()) == ("training", "4 s so far")
    operation.show("reading")
    assert operation.seconds_left() is None
    clock.now += 26
    operation.show(Step("har: fold 2 of 5", 0.25))
    assert (operation.text, operation.time_text()) == ("training: har: fold 2 of 5", "25%, about 1 min 30 s left")
    clock.now += 60
    operation.show(Step("har: fold 2 of 5", 0.25))
    assert operation.seconds_left() == 30.0
    clock.now += 60
    assert operation.seconds_left() == 0.0


class Output(StringIO):
    """Standard error that a test reads while it is written, as a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        if "34%" in text:
            self.written.set()
        return super().write(text)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_is_shown_on_standard_error_only(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Text, percentage and time left appear on standard error, as a bar or as lines; standard output stays empty."""
    error = Output(is_terminal)
    monkeypatch.setattr("sys.stderr", error)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(screen, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(screen, "BAR_EVERY_S", 0.01)
    monkeypatch.setattr(screen, "progress_console", Console(**screen.PLAIN, stderr=True))  # it knows its terminal
    with screen.working("training") as show:
        show(Step("har: fold 2 of 5", 0.34))
        assert error.written.wait(20)
    assert "har: fold 2 of 5" in error.getvalue()
    assert "left" in error.getvalue()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("level", "arguments", "is_shown"),
    [("INFO", "", True), ("INFO", "--quiet", False), ("WARNING", "", False), ("DEBUG", "", True)],
)
def test_progress_can_be_turned_off(
    level: str, arguments: str, is_shown: bool, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--quiet``, or a LOG_LEVEL above INFO, turns progress off, and the result is printed as ever."""
    monkeypatch.setenv("LOG_LEVEL", level)
    begun: list[float] = []

    def remember(_step: object, every_s: float) -> AbstractContextManager[None]:
        begun.append(every_s)
        return nullcontext()

    monkeypatch.setattr(screen, "_repeated", remember)
    outcome = volspike("simulate", "--minutes", "1", "--out", "a.ndjson", *arguments.split())
    assert outcome.status == 0
    assert "ticks of BTC-USD" in outcome.out
    assert bool(begun) is is_shown


@pytest.mark.parametrize(
    "command",
    [
        "replay --raw a.ndjson --out x.csv",
        "replay --raw a.ndjson --out x.feather",
        "label --features f.parquet --output x.csv",
        "consolidate --features f.parquet --output x.json",
        "convert --raw a.ndjson --out x.csv",
        "simulate --out x.csv",
        "audit --features f.parquet --output x.csv",
        "drift --features f.parquet --decision x.csv",
        "report --features f.parquet --output x.csv",
        "load-test --output x.csv",
        "backtest --features f.parquet --out x.csv",
        "backfill --from 2025-01-01T00:00:00Z --to 2025-01-01T01:00:00Z --out x.csv",
        "analyze --features f.parquet --output x.png",
        "ingest --source simulator --out x.ndjson",
    ],
)
def test_an_output_of_another_kind_is_refused(command: str, volspike: Run, tmp_path: Path) -> None:
    """A name that promises another format than the command writes is refused at once, and nothing is written."""
    (tmp_path / "a.ndjson").write_text("")
    before = sorted(tmp_path.iterdir())
    assert_refused(volspike(*command.split()), USAGE, "x.")
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_without_an_ending_is_accepted(tape: Path, tmp_path: Path) -> None:
    """A file name may have no ending at all."""
    outcome = run_in(tmp_path, "replay", "--raw", tape, "--out", "features", "--every", "1s")
    assert outcome.status == 0
    assert (tmp_path / "features").is_file()
