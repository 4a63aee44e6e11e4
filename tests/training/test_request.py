"""Options of a training run are checked without the learning libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNKNOWN_MODEL = """
from pathlib import Path
from volspike.training.request import TrainingRequest

TrainingRequest(features=Path("features.parquet"), models=("lgbm",)).check()
"""

MISSING_FILE = """
from pathlib import Path
from volspike.cli.train import run

run(features=Path("no_such_folder/features.parquet"))
"""

LOADED = """
import sys
from volspike.errors import VolspikeError

try:
    exec(sys.argv[1])
except VolspikeError as error:
    loaded = {"sklearn", "xgboost", "lightgbm", "mlflow", "onnx", "onnxruntime", "matplotlib"} & set(sys.modules)
    print(type(error).__name__, *sorted(loaded))
"""
"""Prints the error of a script and the learning libraries that it has imported."""


@pytest.mark.parametrize(("script", "error"), [(UNKNOWN_MODEL, "UsageError"), (MISSING_FILE, "UnreadableFile")])
def test_wrong_options_are_refused_before_learning_libraries_are_imported(script: str, error: str) -> None:
    """An unknown model or a missing file imports no learning library, nor MLflow, ONNX or matplotlib."""
    command = [sys.executable, "-c", LOADED, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.stdout.split(), done.stderr) == ([error], "")
