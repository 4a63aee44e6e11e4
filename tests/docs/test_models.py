"""The shipped models load, are small, and match their cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from volspike.features.schema import DEFINITION
from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_FEATURES, TEN_MODEL, Artifact


@pytest.mark.parametrize(
    ("folder", "simulated"),
    [(DEFAULT_MODEL, False), (TEN_MODEL, False), (BASELINE_MODEL, False), (SIMULATED_MODEL, True)],
)
def test_shipped_models_fit_this_version(folder: Path, simulated: bool) -> None:
    """A shipped model uses the current feature definition, is below 1 MB, and its card states its PR-AUC."""
    artifact = Artifact.load(folder)
    assert artifact.metadata.feature_definition == DEFINITION
    assert set(artifact.features) <= set(artifact.metadata.feature_set.names)
    assert artifact.metadata.simulated is simulated
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 1_000_000
    card = (folder / "card.md").read_text()
    assert f"{artifact.metadata.metrics['model']['pr_auc']:.3f}" in card
    baseline = artifact.metadata.metrics[artifact.metadata.baseline]
    assert f"{baseline['pr_auc']:.3f}" in card


def test_the_ten_feature_model_takes_the_ten_features() -> None:
    """The model for clients of the earlier system takes exactly the features they send."""
    assert Artifact.load(TEN_MODEL).features == TEN_FEATURES
