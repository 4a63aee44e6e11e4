"""The served model: the requested one, production, the shipped one, and the return to the z-score rule."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from volspike.config import ServingSettings
from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, Artifact
from volspike.models.choice import model_to_serve, named_model, origin_fault, production_model, with_companion


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (ServingSettings(), None),
        (ServingSettings(model=Path("m")), Path("m")),
        (ServingSettings(version="random_forest"), Path("models/artifacts/random_forest")),
        (ServingSettings(version="random_forest", model=Path("m")), Path("m")),
        (ServingSettings(variant="baseline", artifacts=Path("nowhere")), BASELINE_MODEL),
        (ServingSettings(variant="baseline", artifacts=Path("nowhere"), model=Path("m"), version="x"), BASELINE_MODEL),
    ],
)
def test_what_was_asked_for(settings: ServingSettings, wanted: Path | None) -> None:
    """A folder beats a name among the artifacts; the variant baseline beats both."""
    assert named_model(settings) == wanted


def test_the_trained_baseline_comes_before_the_shipped_one(tmp_path: Path) -> None:
    """Where a training has left a baseline, it is the one to go back to."""
    shutil.copytree(BASELINE_MODEL, tmp_path / "baseline")
    assert named_model(ServingSettings(variant="baseline", artifacts=tmp_path)) == tmp_path / "baseline"


def test_the_shipped_baseline_is_one() -> None:
    """It takes the ten features of the earlier system, in rows that ``featurize`` makes."""
    artifact = Artifact.load(BASELINE_MODEL)
    assert artifact.name == "baseline"
    assert set(artifact.features) == set(Artifact.load(TEN_MODEL).features)
    assert artifact.metadata.feature_digest == Artifact.load(TEN_MODEL).metadata.feature_digest
    assert "composite_2" in artifact.metadata.thresholds


def test_production_comes_before_what_ships(tmp_path: Path) -> None:
    """Without a request: production, or else the shipped model for this kind of market."""
    production = production_model(ServingSettings(artifacts=tmp_path))
    assert model_to_serve(None, production, simulated=False) == DEFAULT_MODEL
    assert model_to_serve(None, production, simulated=True) == SIMULATED_MODEL
    shutil.copytree(TEN_MODEL, production)
    assert model_to_serve(None, production, simulated=True) == production
    assert model_to_serve(Path("m"), production, simulated=True) == Path("m")


@pytest.mark.parametrize("model", [DEFAULT_MODEL, SIMULATED_MODEL])
@pytest.mark.parametrize("simulated", [True, False])
def test_the_start_and_a_later_promotion_follow_one_rule(model: Path, simulated: bool, tmp_path: Path) -> None:
    """A promoted model is used on a market of this kind at the start exactly if it is when it is promoted later."""
    shutil.copytree(model, tmp_path / "production")
    chosen = model_to_serve(None, tmp_path / "production", simulated=simulated)
    fault = origin_fault(Artifact.load(model).metadata, simulated=simulated)
    assert (chosen == tmp_path / "production") == (fault is None)
    assert (fault is None) == (simulated or model == DEFAULT_MODEL)


def test_a_companion_is_added_where_none_is_named() -> None:
    """The ten features are answered unless another second model was requested."""
    assert with_companion(ServingSettings()).companion == TEN_MODEL
    assert with_companion(ServingSettings(companion=Path("m"))).companion == Path("m")
