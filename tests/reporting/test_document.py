"""The PDF opens, shows the figures that were found, and keeps to its pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.reporting.conftest import ROWS, market_table
from tests.reporting.pages import TITLE, Page, evaluated, pages
from volspike.reporting.evaluate import Evaluation
from volspike.reporting.format import SIMULATED, number, signed, span
from volspike.reporting.pages import document
from volspike.training import TrainingReport


@pytest.fixture(scope="module")
def found(evaluation: Evaluation) -> list[Page]:
    return pages(document(evaluation, lambda step: None))


def test_every_page_is_whole(found: list[Page]) -> None:
    """No page is blank, no text leaves its page."""
    assert len(found) > 6
    for page in found:
        assert page.inked > 0.005
        assert page.overflow <= 0.0


def test_title_page_tells_what_was_found(found: list[Page], evaluation: Evaluation) -> None:
    """The summary has each model's figures, its baseline's, and the difference, under the market's nature."""
    text = found[0].text
    assert text.startswith(TITLE)
    assert SIMULATED in text
    assert f"{ROWS:,} labelled rows of BTC-USD, ETH-USD" in text
    for model in evaluation.models:
        judged = model.comparison
        for figure in (judged.model.pr_auc, judged.baseline.pr_auc, judged.model.roc_auc, judged.model.log_loss):
            assert number(figure) in text
        assert span(judged.model_intervals["pr_auc"]) in text
        if model.metadata.model != judged.baseline_name:
            assert signed(judged.gain) in text
            assert span(judged.gain_intervals["pr_auc"]) in text
    assert "PR-AUC" in text


def test_model_pages_tell_every_part(found: list[Page], evaluation: Evaluation) -> None:
    """Thresholds with the served one named, products, hours, events and features are there, and the method last."""
    text = " ".join(page.text for page in found)
    for model in evaluation.models:
        served = model.metadata.served_threshold
        assert f"{served} (served)" in text
        for at in model.thresholds:
            assert f"{model.metadata.thresholds[at.name]:.4f}" in text
        for part in model.products:
            assert f"{part.label} {part.rows:,} {part.spike_events}" in text
        assert f"{model.comparison.model_events.alarms}" in text
    for heading in ("Fold by fold", "Hour by hour", "What it goes by", "Around the largest spikes", "Thresholds"):
        assert text.count(heading) == len(evaluation.models)
    assert found[-1].text.startswith("Method ")
    assert "Künsch" in found[-1].text
    assert evaluation.models[0].metadata.onnx_sha256[:16] in found[-1].text


def test_the_model_in_service_is_marked(found: list[Page], evaluation: Evaluation) -> None:
    """A copy in ``production`` is no model of its own, and says which one is served."""
    (served,) = [model for model in evaluation.models if model.is_in_service]
    assert {model.title for model in evaluation.models} == {"logistic", "har"}
    assert f"{served.title} *" in found[0].text
    assert "In service. " in " ".join(page.text for page in found)


def test_one_model_makes_a_report(evaluation: Evaluation) -> None:
    """A single artifact has its own title page, pages and method."""
    alone = replace(evaluation, models=evaluation.models[:1])
    assert pages(document(alone, lambda step: None))[-1].text.startswith("Method ")


def test_long_names_and_many_models_stay_on_the_page(evaluation: Evaluation) -> None:
    """A table goes on over the page's end, and a name too long for its column is broken."""
    model = replace(evaluation.models[0], title="a_name_that_nobody_would_give_to_a_model_but_somebody_did")
    crowd = replace(evaluation, models=(model,) * 2, features=Path("f" * 200 + ".parquet"), left_out=("w" * 300,) * 60)
    for page in pages(document(crowd, lambda step: None)):
        assert page.overflow <= 0.0


def test_rows_without_a_spike_are_told_and_not_drawn(report: TrainingReport, folder: Path, tmp_path: Path) -> None:
    """Where no area is defined there is no curve and no verdict, and the report says why."""
    split = report.models[0].folds[-1].test_rows
    file = tmp_path / "features.parquet"
    pq.write_table(market_table(ROWS, calm_from=ROWS - split - 100), file)
    calm = evaluated(file, folder / "models" / "logistic")
    text = " ".join(page.text for page in pages(document(calm, lambda step: None)))
    assert "of one class only" in text
    assert "too few events to tell (0 separate spike events)" in text
    assert "Around the largest spikes" not in text
