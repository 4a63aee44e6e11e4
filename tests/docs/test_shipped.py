"""The script that trains the shipped models writes an artifact and a card with both evaluations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from volspike.datasets import load_dataset
from volspike.datasets.build import build_features, label_file
from volspike.features import Every, FeatureSet
from volspike.feeds.simulation.market import simulate_market
from volspike.labels import SpikeDefinition
from volspike.models import Artifact
from volspike.tape.write import write_ndjson

ROOT = Path(__file__).parents[2]
START = 1_764_979_200_000_000_000


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A model of two hours of two simulated products."""
    folder = tmp_path_factory.mktemp("shipped")
    tape, features = folder / "tape.ndjson", folder / "simulated_1.parquet"
    write_ndjson(simulate_market(["BTC-USD", "ETH-USD"], 7200, 5, START), tape, simulated=True)
    build_features([str(tape)], features, FeatureSet.of((30, 60, 300), "full"), Every.SECOND)
    label_file(features, features, SpikeDefinition.parse("jump:2"))
    command = [sys.executable, str(ROOT / "docs" / "shipped_model.py"), str(folder / "model"), str(features)]
    subprocess.run([*command, "--evaluate", str(features)], check=True, capture_output=True)  # noqa: S603
    return Artifact.load(folder / "model")


def test_it_serves_every_source(shipped: Artifact) -> None:
    """A row per second of any profile, τ from its own inputs, and a prior for online calibration."""
    metadata = shipped.metadata
    assert (metadata.profile, metadata.every, metadata.spike, metadata.simulated) == ("any", "1s", "jump:2", True)
    assert metadata.takes_tau
    assert metadata.features[0] == "realized_volatility_3600s"
    assert metadata.adaptation is not None
    assert metadata.products == ("BTC-USD", "ETH-USD")


def test_it_scores_rows_of_its_features(shipped: Artifact) -> None:
    """Clients send the features only, as τ follows from the volatility of the trailing hour."""
    dataset = load_dataset(shipped.directory.parent / "simulated_1.parquet")
    x = dataset.columns(shipped.features)
    probability = shipped.probability(x)
    assert ((probability > 0.0) & (probability < 1.0)).all()
    assert shipped.probability_of(x[100].tolist()) == pytest.approx(probability[100], abs=1e-6)


def test_the_card_has_both_evaluations(shipped: Artifact) -> None:
    """A row for each market of the later days, of left-out products and of files that are only evaluated on."""
    card = (shipped.directory / "card.md").read_text()
    later, left_out = card.split("**Products that the model has not seen**")
    assert later.count("| simulated:") == 2
    assert left_out.count("| simulated:") == 4
    assert f"{shipped.metadata.metrics['model']['pr_auc']:.3f}" in card
    assert "SIMULATED" in card
