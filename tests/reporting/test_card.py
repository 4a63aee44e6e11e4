"""A model card has every section and the metrics of the metadata, also for older metadata."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from volspike.models import DEFAULT_MODEL, METADATA_FILE, SIMULATED_MODEL, TEN_MODEL, Artifact, Metadata
from volspike.models.metadata import decode_metadata
from volspike.reporting.card import model_card, write_cards
from volspike.reporting.format import SIMULATED, number
from volspike.training.report import TrainingReport

SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]


def sections(card: str) -> list[str]:
    return [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]


def test_card_of_a_trained_model(report: TrainingReport, folder: Path) -> None:
    """The card has metrics with intervals, final block, folds, products and hours, and the SIMULATED banner."""
    facts = Artifact.load(folder / "models" / "logistic").metadata
    card = model_card(facts)
    assert sections(card) == SECTIONS
    assert SIMULATED in card
    assert "SIMULATED data" in card
    model, final = facts.metrics["model"], facts.metrics["model_final"]
    for figures in (model, final):
        assert f"{figures['pr_auc']:.3f}" in card
        assert f"{figures['pr_auc_low']:.3f} … {figures['pr_auc_high']:.3f}" in card
    for end in ("", "_final"):
        for group, name in (("days", "model"), ("calm", "model"), ("minutes_30_per_day", "recall_baseline")):
            assert number(facts.metrics[f"{group}{end}"][name]) in card
    assert card.count("PR-AUC in calm rows (95 %)") == card.count("onset recall at 30 min of alarm per day") == 2
    assert len(facts.fold_metrics) == 3
    assert [fold.is_final for fold in facts.fold_metrics] == [False, False, True]
    assert facts.fold_metrics[-1].pr_auc == final["pr_auc"]
    assert [part.label for part in facts.product_metrics] == ["BTC-USD", "ETH-USD"]
    for part in (*facts.product_metrics, *(hour for hour in facts.hour_metrics if hour.pr_auc is not None)):
        assert f"| {part.label} | {part.rows:,} | {part.spike_events} |" in card
    assert sum(part.rows for part in facts.hour_metrics) == model["rows"]
    assert f"{facts.served_threshold} (served)" in card


@pytest.mark.parametrize("folder", [DEFAULT_MODEL, TEN_MODEL, SIMULATED_MODEL])
def test_card_of_a_shipped_model(folder: Path) -> None:
    """The card of every shipped model is complete and has no undefined value in its text."""
    facts = decode_metadata((folder / METADATA_FILE).read_bytes())
    card = model_card(facts)
    assert sections(card) == SECTIONS
    assert "None" not in card
    assert re.search(r"\bnan\b", card.lower()) is None
    assert (SIMULATED in card) == facts.simulated


def test_few_events_add_a_warning() -> None:
    """With fewer than five spike events the card warns; with exactly five it does not."""
    facts = decode_metadata((DEFAULT_MODEL / METADATA_FILE).read_bytes())

    def with_events(count: int) -> Metadata:
        model = facts.metrics["model"] | {"spike_events": count}
        return msgspec.structs.replace(facts, metrics=facts.metrics | {"model": model})

    assert "few events: 4 separate spike event(s)" in model_card(with_events(4))
    assert "few events" not in model_card(with_events(5))


def test_every_artifact_gets_a_card(report: TrainingReport, folder: Path) -> None:
    """Cards are written next to the graphs, and the artifacts still load."""
    files = write_cards(folder / "models")
    assert [file.parent.name for file in files] == sorted({"har", "logistic", "production", report.best_baseline})
    for file in files:
        assert file.read_text() == model_card(Artifact.load(file.parent).metadata)
