"""Rows to learn from and an artifact to load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.samples import market_sample
from volspike.features.schema import FeatureSet
from volspike.models import DETECTORS, TEN_FEATURES, Artifact, DataFacts, Metadata, SplitFacts


@pytest.fixture
def metadata() -> Metadata:
    """The metadata of a logistic model of the ten features."""
    features = FeatureSet()
    return Metadata(
        model="logistic",
        created="2025-12-06T05:45:36Z",
        volspike_version="0.1.0",
        features=TEN_FEATURES,
        left_out=(),
        feature_digest=features.digest,
        windows=features.windows,
        every="tick",
        profile="ticker",
        simulated=False,
        products=("BTC-USD",),
        horizon_s=60,
        label_percentile=90.0,
        tau=1.5e-4,
        thresholds={"best_f1": 0.4, "rate_10": 0.3},
        served_threshold="best_f1",
        accepts_missing=False,
        data=DataFacts(
            rows=1000, train_rows=700, validation_rows=150, test_rows=150, start="2025-12-06Z", end="2025-12-07Z"
        ),
        split=SplitFacts(method="walk_forward", folds=5, fractions=(0.7, 0.15, 0.15), note="the newest fold"),
        metrics={"model": {"pr_auc": 0.5, "rows": 150, "brier": None}},
        importance=dict.fromkeys(TEN_FEATURES, 0.1),
        versions={"python": "3.11"},
        onnx_sha256="",
    )


@pytest.fixture(scope="session")
def logistic_onnx() -> bytes:
    """The graph of a logistic regression over ten features."""
    onnx: bytes = DETECTORS["logistic"]().fit(market_sample(2000, 1)).to_onnx().SerializeToString()
    return onnx


@pytest.fixture
def artifact_folder(tmp_path: Path, metadata: Metadata, logistic_onnx: bytes) -> Path:
    """A folder with a complete artifact."""
    folder = tmp_path / "artifacts" / "logistic"
    Artifact.save(folder, logistic_onnx, metadata, {"pr_curve.png": b"a picture"})
    return folder
