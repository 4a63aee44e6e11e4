"""A simulated market on its way through the commands, made once by the commands themselves."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.cli.command_line import Run, run_in


@pytest.fixture
def volspike(tmp_path: Path) -> Run:
    """``volspike`` in a folder of the test, which is ``tmp_path``."""
    return partial(run_in, tmp_path)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tape.ndjson``, its ``features.parquet`` (labelled, a row per second), and trained models.

    Read only: a test that changes something copies it first.
    """
    folder = tmp_path_factory.mktemp("market")
    commands = [
        "simulate --minutes 50 --seed 3 --out tape.ndjson",
        "replay --raw tape.ndjson --out features.parquet --every 1s --add-labels",
        "train --features features.parquet --models baseline logistic --split-method time_based --artifacts models",
    ]
    for command in commands:
        outcome = run_in(folder, *command.split())
        assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def features(market: Path, tmp_path: Path) -> Path:
    """The test's own copy of the labelled feature file."""
    return Path(shutil.copy2(market / "features.parquet", tmp_path))


@pytest.fixture
def tape(market: Path, tmp_path: Path) -> Path:
    """The test's own copy of the tape."""
    return Path(shutil.copy2(market / "tape.ndjson", tmp_path))


@pytest.fixture
def model(market: Path, tmp_path: Path) -> Path:
    """The test's own copy of a trained model."""
    return Path(shutil.copytree(market / "models" / "logistic", tmp_path / "logistic"))
