"""A reference for ``predict.py``: the usual service of FastAPI, pydantic, a plain ``def``, pandas and scikit-learn.

Usage: ``python plain_service.py PORT ROWS.npz``; the file holds float64 ``x`` (n, f), int8 ``y`` (n) and the
``names`` of the f columns. The forest is fitted at start.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sklearn.ensemble import RandomForestClassifier


class PredictRequest(BaseModel):
    """One row."""

    features: dict[str, float]


class PredictResponse(BaseModel):
    """Its answer."""

    prediction: int
    probability: float
    alert: bool
    inference_time_ms: float
    model_version: str


def create_app(model: Any, names: list[str]) -> FastAPI:
    """The service around a fitted classifier."""
    app = FastAPI()

    @app.post("/predict", response_model=PredictResponse)
    def predict(request: PredictRequest) -> PredictResponse:
        missing = [name for name in names if name not in request.features]
        if missing:
            raise HTTPException(422, f"missing features: {missing}")
        started = time.perf_counter()
        row = pd.DataFrame([request.features])[names]
        probability = float(model.predict_proba(row)[0, 1])
        return PredictResponse(
            prediction=int(probability >= 0.5),
            probability=probability,
            alert=probability >= 0.5,
            inference_time_ms=1e3 * (time.perf_counter() - started),
            model_version="random_forest",
        )

    return app


def main() -> None:
    """Fit and serve."""
    port, rows = sys.argv[1:]
    with np.load(rows, allow_pickle=False) as data:
        x, y, names = data["x"], data["y"], data["names"].tolist()
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=60, max_samples=0.5, random_state=0)
    model = forest.fit(pd.DataFrame(x, columns=names), y)
    uvicorn.run(create_app(model, names), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
