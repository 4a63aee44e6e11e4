"""A reference for ``predict.py``: the same kind of forest, saved by MLflow for ``mlflow models serve``.

Usage: ``python mlflow_model.py FOLDER ROWS.npz``, the file as in ``plain_service.py``. Saved by skops: no pickle.
"""

from __future__ import annotations

import sys

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier


def main() -> None:
    """Fit and save."""
    folder, rows = sys.argv[1:]
    with np.load(rows, allow_pickle=False) as data:
        x, y = pd.DataFrame(data["x"], columns=data["names"].tolist()), data["y"]
    model = RandomForestClassifier(n_estimators=100, min_samples_leaf=60, max_samples=0.5, random_state=0).fit(x, y)
    mlflow.sklearn.save_model(
        model,
        folder,
        serialization_format="skops",
        skops_trusted_types=["sklearn.tree._tree.Tree"],
        signature=infer_signature(x.head(), model.predict_proba(x.head())),
        pip_requirements=["scikit-learn"],
        pyfunc_predict_fn="predict_proba",
    )


if __name__ == "__main__":
    main()
