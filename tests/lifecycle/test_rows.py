"""Recordings become rows to learn from: the newest of them, of the served model's kind, thinned after labelling."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command_line import run_in
from volspike.datasets import load_dataset
from volspike.errors import UsageError
from volspike.lifecycle.retrain import is_simulated, recent_tapes, replayed, rows_of, thinned
from volspike.market import SECOND_NS
from volspike.models import DEFAULT_MODEL, METADATA_FILE
from volspike.models.metadata import decoded


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty simulated minutes, a few ticks a second."""
    folder = tmp_path_factory.mktemp("recorded")
    outcome = run_in(folder, "simulate", "--minutes", "20", "--seed", "3", "--out", "tape.ndjson")
    assert outcome.status == 0, outcome.err
    return folder / "tape.ndjson"


def test_only_the_newest_days_are_replayed(tape: Path, tmp_path: Path) -> None:
    """Tapes of before are left alone; one whose name tells no time is taken."""
    for name in (
        "ticks_BTCUSD_20260101_000000",
        "ticks_BTCUSD_20260120_000000",
        "ticks_BTCUSD_20260121_050000",
        "mine",
    ):
        shutil.copy(tape, tmp_path / f"{name}.ndjson")
    names = [path.stem for path in recent_tapes(tmp_path, 14.0)]
    assert names == ["mine", "ticks_BTCUSD_20260120_000000", "ticks_BTCUSD_20260121_050000"]
    with pytest.raises(UsageError, match="no recordings"):
        recent_tapes(tmp_path / "absent", 14.0)


def test_rows_are_of_the_models_kind(tape: Path, tmp_path: Path) -> None:
    """Replayed as the served model needs them, with labels, and one row a second and product."""
    like = decoded((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    assert is_simulated([tape])
    dataset = load_dataset(replayed([tape], like, tmp_path, 400_000))
    assert dataset.facts.digest == like.feature_digest
    assert dataset.facts.simulated
    assert str(dataset.facts.every) == like.every
    assert len(np.unique(dataset.time // SECOND_NS)) >= 0.99 * len(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]


def test_thinning_changes_no_label(tape: Path, tmp_path: Path) -> None:
    """Of too many rows those of every k-th second stay, with the labels that they had."""
    like = decoded((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    whole = replayed([tape], like, tmp_path, 400_000)
    assert thinned(whole, tmp_path / "thin.parquet", 300) > 1
    thin, full = load_dataset(tmp_path / "thin.parquet"), load_dataset(whole)
    places = np.searchsorted(full.time, thin.time)
    assert np.array_equal(full.future_volatility[places], thin.future_volatility)
    assert np.array_equal(full.x[places], thin.x, equal_nan=True)
    assert len(rows_of(whole, tmp_path, 300)) == len(thin)
    assert len(rows_of(whole, tmp_path, 400_000)) == len(full)
