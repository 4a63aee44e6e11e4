"""The examples as pip installs them: from ticks to predictions in separate processes, with and without them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests_system.processes import Outcome, run_volspike, succeeded

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed all examples."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    sources = tmp_path_factory.mktemp("sources") / "examples"
    shutil.copytree(EXAMPLES, sources)  # pip builds in the folder of a project
    packages = [str(path) for path in sorted(sources.iterdir()) if (path / "pyproject.toml").exists()]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *packages], check=True)  # noqa: S603
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    """A folder with four simulated hours as rows: with the example's column, and without."""
    folder = tmp_path_factory.mktemp("work")
    succeeded(run_volspike(folder, "simulate", "--minutes", 240, "--seed", 7, "--out", "tape.parquet"))
    for features in ("core", "core+roll"):
        command = ("replay", "--raw", "tape.parquet", "--every", "1s", "--add-labels", "--feature-set", features)
        succeeded(with_plugins(folder, site, *command, "--out", f"{features}.parquet"))
    return folder


def with_plugins(folder: Path, site: Path, *arguments: object) -> Outcome:
    return run_volspike(folder, *arguments, PYTHONPATH=str(site))


def bits(table: pa.Table, column: str) -> bytes | list[Any]:
    """The values of a column, floats as bytes, since no NaN equals another."""
    values = table[column]
    found: bytes | list[Any] = values.to_numpy().tobytes() if pa.types.is_floating(values.type) else values.to_pylist()
    return found


def test_an_extra_feature_changes_no_built_in_column(work: Path) -> None:
    """The rows have one more column, and all others are equal bit for bit."""
    plain, extended = (pq.read_table(work / f"{name}.parquet") for name in ("core", "core+roll"))
    assert set(extended.column_names) - set(plain.column_names) == {"roll__spread_bps"}
    for name in plain.column_names:
        assert bits(extended, name) == bits(plain, name), name
    assert np.isfinite(extended["roll__spread_bps"].to_numpy()).any()


def test_a_model_of_a_plug_in_is_served_without_it(work: Path, site: Path) -> None:
    """Training needs the distribution; predictions need the artifact only, and are the same with and without it."""
    train = ("train", "--features", "core.parquet", "--models", "mlp", "--search", 0, "--artifacts", "models")
    refused = run_volspike(work, *train)
    assert (refused.status, "no model named mlp" in refused.err) == (2, True), refused.err
    succeeded(with_plugins(work, site, *train))
    infer = ("infer", "--model", "models/mlp", "--features", "core.parquet", "--mode", "live", "--n-samples", 50)
    alone, together = run_volspike(work, *infer), with_plugins(work, site, *infer)
    assert succeeded(alone).out.count("\n") > 0
    assert alone.status == together.status == 0


def test_a_model_with_an_extra_feature_names_what_it_needs(work: Path, site: Path) -> None:
    """With the distribution the model predicts; without it, the error says what to install."""
    train = (
        "train",
        "--features",
        "core+roll.parquet",
        "--models",
        "logistic",
        "--search",
        0,
        "--artifacts",
        "extended",
    )
    succeeded(with_plugins(work, site, *train))
    infer = ("infer", "--model", "extended/logistic", "--features", "core+roll.parquet", "--n-samples", 50)
    succeeded(with_plugins(work, site, *infer))
    refused = run_volspike(work, *infer)
    assert refused.status != 0
    assert "volspike-roll" in refused.err
    assert "Traceback" not in refused.err


def test_doctor_lists_the_examples(work: Path, site: Path) -> None:
    """Each plug-in is listed with its distribution and version."""
    listed = with_plugins(work, site, "doctor", "--timeout", 0.2, "--rest-url", "http://127.0.0.1:1")
    for name in ("volspike-hook", "volspike-mlp", "volspike-roll"):
        assert name in listed.out
