"""A model has fallen where its figures did by more than chance, and not where the market became calm."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.evaluation.metrics import average_precision
from volspike.models import DEFAULT_MODEL, METADATA_FILE
from volspike.models.metadata import decode_metadata
from volspike.monitoring.outcome_database import OutcomeDatabase, OutcomeRecord, PredictionRecord
from volspike.monitoring.performance import ServedModel
from volspike.monitoring.performance_drift import PerformanceDrift, performance_drift, recent_performance

SECOND = 10**9


def weeks(
    skill: float, base_rate: float, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int8]]:
    """Time, probability and spike of 30 000 seconds, with spikes in runs of five minutes."""
    random = np.random.default_rng(seed)
    spike = np.repeat(random.random(100) < base_rate, 300).astype(np.int8)
    score = skill * spike + random.normal(size=30_000)
    return np.arange(30_000, dtype=np.int64) * SECOND, 1 / (1 + np.exp(2 - score)), spike


def judged(skill: float, base_rate: float, seed: int = 0, reference: float = 0.6) -> PerformanceDrift:
    return performance_drift(*weeks(skill, base_rate, seed), reference_pr_auc=reference, reference_base_rate=0.2)


def test_area_at_the_rows_own_rate_is_the_average_precision() -> None:
    """Without a reference it is the usual PR-AUC, inside its interval."""
    time, probability, spike = weeks(1.5, 0.2)
    found = performance_drift(time, probability, spike)
    assert found.pr_auc == pytest.approx(average_precision(spike, probability))
    assert found.pr_auc_at_reference == found.pr_auc
    assert found.pr_auc_low < found.pr_auc < found.pr_auc_high
    assert found.brier_low < found.brier < found.brier_high


def test_calmer_market_is_no_fall() -> None:
    """With a third of the spikes PR-AUC halves, but is unchanged at the reference's base rate."""
    usual, calm = judged(1.5, 0.2), judged(1.5, 0.06, seed=1)
    assert calm.pr_auc < 0.75 * usual.pr_auc
    assert calm.pr_auc_at_reference == pytest.approx(usual.pr_auc_at_reference, rel=0.12)
    assert not judged(1.5, 0.06, seed=1, reference=usual.pr_auc_at_reference).has_fallen


def test_model_that_lost_its_skill_has_fallen() -> None:
    """A model that ranks at random has fallen."""
    assert judged(0.0, 0.2).has_fallen
    assert not judged(3.0, 0.2).has_fallen


def test_few_events_are_no_fall() -> None:
    """With fewer than five spike events there is no conclusion."""
    time, probability, spike = weeks(0.0, 0.02)
    found = performance_drift(time, probability, spike, reference_pr_auc=0.9, reference_base_rate=0.2)
    assert found.spike_events < 5
    assert not found.has_fallen
    nothing = performance_drift(time[:0], probability[:0], spike[:0])
    assert isnan(nothing.pr_auc)
    assert not nothing.is_conclusive


def test_recent_outcomes_are_the_models_own(tmp_path: Path) -> None:
    """Only the newest days of the model count; without outcomes the result is None."""
    metadata = decode_metadata((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    file = tmp_path / "outcomes.sqlite"
    assert recent_performance(file, metadata) is None
    model = ServedModel(
        digest=metadata.onnx_sha256[:12], name=metadata.model, version=metadata.created, tau=1e-4, simulated=False
    )
    other = msgspec.structs.replace(model, name="other")
    database = OutcomeDatabase(file)
    assert recent_performance(file, metadata) is None
    seconds = [0, 86_400 * 30, 86_400 * 30 + 1]
    told: list[PredictionRecord | OutcomeRecord] = [
        PredictionRecord("BTC-USD", second * SECOND, 0.5, 0.5, True, one)
        for one in (model, other)
        for second in seconds
    ]
    database.write([*told, *(OutcomeRecord("BTC-USD", second, 1e-3, False) for second in seconds)], 0)
    database.close()
    found = recent_performance(file, msgspec.structs.replace(metadata, tau=1e-4), days=14.0)
    assert found is not None
    assert (found.rows, found.base_rate) == (2, 1.0)
