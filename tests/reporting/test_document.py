"""The PDF opens, shows the metrics of the evaluation, and no text leaves its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.reporting.conftest import ROWS, market_table
from tests.reporting.pages import TITLE, Page, evaluated, pages
from volspike.reporting.evaluate import EvaluationReport
from volspike.reporting.format import SIMULATED, number, share, signed, span
from volspike.reporting.pages import render_pdf
from volspike.training.report import TrainingReport


@pytest.fixture(scope="module")
def found(evaluation: EvaluationReport) -> list[Page]:
    return pages(render_pdf(evaluation, lambda step: None))


def test_no_page_is_blank_or_overflows(found: list[Page]) -> None:
    """No page is blank, no text leaves its page."""
    assert len(found) > 6
    for page in found:
        assert page.inked > 0.005
        assert page.overflow <= 0.0


def test_title_page_shows_the_summary(found: list[Page], evaluation: EvaluationReport) -> None:
    """The summary has the metrics of each model and its baseline and their difference, with the SIMULATED banner."""
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


def test_model_pages_have_every_section(found: list[Page], evaluation: EvaluationReport) -> None:
    """Thresholds, products, hours, events and features are present, and the method is last."""
    text = " ".join(page.text for page in found)
    for model in evaluation.models:
        served = model.metadata.served_threshold
        assert f"{served} (served)" in text
        for at in model.thresholds:
            assert f"{model.metadata.thresholds[at.name]:.4f}" in text
        for part in model.products:
            assert f"{part.label} {part.rows:,} {part.spike_events}" in text
        assert f"{model.comparison.model_events.alarms}" in text
        assert f"calm rows ({model.comparison.calm.rows:,}) {number(model.comparison.calm.pr_auc.model)}" in text
        for point in model.comparison.budgets:
            recall = share(point.onset_recall.model)
            assert f"{point.budget:g} min per day {point.model.onsets} {recall}" in text
        assert model.reliability is not None
        for decile in model.reliability.bins:
            assert (
                f"{decile.rows:,} {decile.spike_events} {decile.mean_probability:.4f} {decile.observed_rate:.4f}"
                in text
            )
    headings = ("Folds of the training", "Hours of the day", "Feature importance", "Largest spikes", "Thresholds")
    for heading in (*headings, "Ranking and onsets"):
        assert text.count(heading) == len(evaluation.models)
    assert found[-1].text.startswith("Method ")
    assert "Künsch" in found[-1].text
    assert evaluation.models[0].metadata.onnx_sha256[:16] in found[-1].text


def test_served_model_is_marked(report: TrainingReport, found: list[Page], evaluation: EvaluationReport) -> None:
    """The copy in ``production`` is not listed again; the model it was copied from is marked as served."""
    (served,) = [model for model in evaluation.models if model.is_served]
    assert {model.title for model in evaluation.models} == {"logistic", "har", report.best_baseline}
    assert f"{served.title} *" in found[0].text
    assert "Served model. " in " ".join(page.text for page in found)


def test_every_page_without_evidence_says_so(found: list[Page], evaluation: EvaluationReport) -> None:
    """The pages of a model without evidence have a banner; the other models' pages have none."""
    first, *others = evaluation.models
    marked = replace(evaluation, models=(replace(first, is_evidence=False), *others))
    banner = f"NO EVIDENCE: the figures of {first.title} are not out of sample and show no skill."
    rendered = pages(render_pdf(marked, lambda _: None))
    with_banner = [page.text.startswith(banner) for page in rendered]
    ends = [index for index, page in enumerate(rendered) if f" {others[0].title} " in page.text[: len(banner)]]
    assert with_banner[0]
    assert with_banner[-1]
    own = with_banner[1:-1]
    assert own == sorted(own, reverse=True)
    assert 0 < sum(own) < len(own), ends
    assert max(page.overflow for page in rendered) <= 0
    assert not any("NO EVIDENCE:" in page.text for page in found[:-1])


def test_one_model_makes_a_report(evaluation: EvaluationReport) -> None:
    """A report on a single artifact has a title page, model pages and the method."""
    alone = replace(evaluation, models=evaluation.models[:1])
    assert pages(render_pdf(alone, lambda step: None))[-1].text.startswith("Method ")


def test_long_names_and_many_models_stay_on_the_page(evaluation: EvaluationReport) -> None:
    """A long table continues on the next page, and a name too long for its column is broken."""
    model = replace(evaluation.models[0], title="a_name_that_nobody_would_give_to_a_model_but_somebody_did")
    crowd = replace(evaluation, models=(model,) * 2, features=Path("f" * 200 + ".parquet"), left_out=("w" * 300,) * 60)
    for page in pages(render_pdf(crowd, lambda step: None)):
        assert page.overflow <= 0.0


def test_rows_without_a_spike_have_no_curves(report: TrainingReport, folder: Path, tmp_path: Path) -> None:
    """If PR-AUC is undefined, there is no curve and no conclusion, and the report says why."""
    split = report.models[0].folds[-1].test_rows
    file = tmp_path / "features.parquet"
    pq.write_table(market_table(ROWS, calm_from=ROWS - split - 100), file)
    calm = evaluated(file, folder / "models" / "logistic")
    text = " ".join(page.text for page in pages(render_pdf(calm, lambda step: None)))
    assert "hold one class only" in text
    assert "too few events for a conclusion (0 separate spike events)" in text
    assert "Largest spikes" not in text
