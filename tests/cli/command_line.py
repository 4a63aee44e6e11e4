"""The command line in this process, and what a refusal looks like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

from volspike.cli import main

USAGE, DATA, MODEL = 2, 3, 4


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Outcome]


@contextmanager
def called_as(*words: str) -> Iterator[None]:
    """The words with which this process was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        patch.setattr("volspike.cli.screen.LINE_EVERY_S", 3600.0)  # a slow machine prints no line of progress
        yield


def run_in(folder: Path, *arguments: object) -> Outcome:
    """``volspike ARGUMENTS`` run in ``folder``; anything but an exit status that it ends with is the test's failure."""
    out, err = StringIO(), StringIO()
    with (
        chdir(folder),
        called_as("volspike", *map(str, arguments)),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def assert_refused(outcome: Outcome, status: int, *told: str) -> None:
    """One line on standard error that contains all of ``told``, the exit status, and no partial result."""
    assert outcome.err.strip().count("\n") == 0
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert [words for words in told if words not in outcome.err] == [], outcome.err
    assert outcome.status == status
    assert outcome.out == ""


@contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """No file in the folders is created, deleted or written."""
    before = [standing(folder) for folder in folders]
    yield
    assert [standing(folder) for folder in folders] == before


def standing(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path → content and time of the last write of every file, hidden ones included."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def words(text: str) -> str:
    """Text without line breaks and the frames that help is drawn in."""
    return " ".join(text.replace("│", " ").split())
