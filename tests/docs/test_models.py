"""The models that ship load, are small, and are what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_FEATURES, TEN_MODEL, Artifact


@pytest.mark.parametrize(
    ("folder", "simulated"),
    [(DEFAULT_MODEL, False), (TEN_MODEL, False), (BASELINE_MODEL, False), (SIMULATED_MODEL, True)],
)
def test_shipped_models_fit_this_version(folder: Path, simulated: bool) -> None:
    """A shipped model takes features of today's definition, has a card, and weighs under a megabyte."""
    artifact = Artifact.load(folder)
    assert artifact.metadata.feature_digest == artifact.metadata.feature_set.digest
    assert artifact.metadata.simulated is simulated
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 1_000_000
    card = (folder / "card.md").read_text()
    assert f"{artifact.metadata.metrics['model']['pr_auc']:.3f}" in card
    rival = artifact.metadata.metrics[artifact.metadata.baseline]
    assert f"{rival['pr_auc']:.3f}" in card


def test_ten_features_are_answered() -> None:
    """The model for the earlier system's clients takes the very features that they tell."""
    assert Artifact.load(TEN_MODEL).features == TEN_FEATURES
