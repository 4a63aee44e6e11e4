"""Options of a training run are checked without the learning libraries."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from pathlib import Path
from volspike.errors import UsageError
from volspike.training.request import TrainingRequest

try:
    TrainingRequest(features=Path("features.parquet"), models=("lgbm",)).check()
except UsageError:
    loaded = {"sklearn", "xgboost", "lightgbm", "mlflow", "onnx", "onnxruntime", "matplotlib"} & set(sys.modules)
    raise SystemExit(", ".join(sorted(loaded)) or 0)
raise SystemExit("accepted")
"""


def test_unknown_model_is_refused_before_learning_libraries_are_imported() -> None:
    """The error for an unknown model imports neither scikit-learn, XGBoost, LightGBM, MLflow, ONNX nor matplotlib."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr.strip()) == (0, "")
