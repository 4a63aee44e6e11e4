"""A learned model is chosen only on evidence; otherwise the best baseline is, and the reason is stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from volspike.datasets import Dataset
from volspike.evaluation import Comparison, Interval
from volspike.models import Artifact
from volspike.training.fitting import fit_fold
from volspike.training.folds import prepare_training_data
from volspike.training.report import ModelResult
from volspike.training.request import TrainingRequest
from volspike.training.run import LEAST_EVENTS, best_on_test_rows, choose, train_on

Gain = tuple[float, float, float] | tuple[float, float, float, int]
RequestFor = Callable[..., TrainingRequest]


@pytest.fixture(scope="module")
def result(market: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelResult:
    """The result of a model, whose figures the tests replace."""
    request = TrainingRequest(
        features=tmp_path_factory.mktemp("selection") / "features.parquet",
        models=("logistic",),
        artifacts=tmp_path_factory.mktemp("artifacts"),
        folds=2,
        search=0,
    )
    return train_on(market, request, lambda step: None).models[0]


def compared(plain: Comparison, gain: float, low: float, high: float, events: int = LEAST_EVENTS) -> Comparison:
    """The comparison with another gain, its interval and number of events."""
    return replace(
        plain,
        model=replace(plain.model, pr_auc=0.4 + gain),
        baseline=replace(plain.baseline, pr_auc=0.4),
        gain_intervals=plain.gain_intervals | {"pr_auc": Interval(low, high)},
        spike_events=events,
    )


def test_evidence_is_enough_at_its_limits(result: ModelResult) -> None:
    """Twenty events, an interval above zero, and a final block that loses no more than was gained, are enough."""
    pooled = compared(result.pooled, 0.05, 0.001, 0.1)
    final = compared(result.final, -0.049, -0.2, 0.001)
    choice = choose(replace(result, pooled=pooled, final=final), "ewma_30")
    assert choice.model == "logistic"
    assert "+0.050 (+0.001 … +0.100) with 20 separate spike events" in choice.reason


@pytest.mark.parametrize(
    ("pooled", "final", "reason"),
    [
        ((0.05, 0.01, 0.1, LEAST_EVENTS - 1), (0.05, 0.0, 0.1), "rests on 19 separate spike event(s), 20 are needed"),
        ((0.05, 0.0, 0.1), (0.05, 0.0, 0.1), "+0.050 (+0.000 … +0.100) does not exclude zero"),
        ((0.05, np.nan, np.nan), (0.05, 0.0, 0.1), "(no interval) does not exclude zero"),
        ((np.nan, np.nan, np.nan), (0.05, 0.0, 0.1), "the test rows are of one class"),
        ((0.05, 0.01, 0.1), (-0.01, -0.02, -0.001), "contradicted by the final block: -0.010"),
        ((0.05, 0.01, 0.1), (-0.051, -0.2, 0.1), "contradicted by the final block: -0.051"),
    ],
    ids=["few events", "zero", "no interval", "one class", "final interval", "final loss"],
)
def test_without_evidence_the_best_baseline_is_chosen(
    result: ModelResult, pooled: Gain, final: Gain, reason: str
) -> None:
    """Each condition that is not met leads to the best baseline, with the model and the figures in the reason."""
    changed = replace(
        result,
        pooled=compared(result.pooled, *pooled),
        final=compared(result.final, *final),
    )
    choice = choose(changed, "ewma_30")
    assert choice.model == "ewma_30"
    assert choice.reason.startswith("logistic's gain ")
    assert reason in choice.reason


@pytest.mark.parametrize("events", [7, LEAST_EVENTS])
def test_a_loss_is_not_blamed_on_the_number_of_events(result: ModelResult, events: int) -> None:
    """If no requested model is better than the best baseline, the reason names the nearest, whatever the events."""
    logistic = replace(result, pooled=compared(result.pooled, -0.332, -0.4, -0.2, events))
    har = replace(result, model="har", pooled=compared(result.pooled, -0.004, np.nan, np.nan, events))
    garch = replace(result, model="garch", pooled=compared(result.pooled, 0.0, 0.0, 0.0, events))
    choice = choose(logistic, "garch", [har, logistic, garch])
    assert (choice.model, choice.reason) == ("garch", "no model is better on these rows (nearest: har, -0.004)")
    assert choose(logistic, "garch").reason == "no model is better on these rows (nearest: logistic, -0.332)"


def test_a_loss_is_stated_where_another_model_gains(result: ModelResult) -> None:
    """The candidate of the validation rows may lose on the test rows, on which another model gains."""
    logistic = replace(result, pooled=compared(result.pooled, -0.1, -0.2, 0.1, 7))
    other = replace(result, model="lightgbm", pooled=compared(result.pooled, 0.1, 0.0, 0.2, 7))
    choice = choose(logistic, "garch", [logistic, other])
    assert (choice.model, choice.reason) == ("garch", "logistic's gain -0.100 (-0.200 … +0.100) is not above zero")


def test_a_final_block_of_one_class_contradicts_nothing(result: ModelResult) -> None:
    """Without a spike in the final block its gain is undefined, and the pooled gain decides."""
    pooled, final = compared(result.pooled, 0.05, 0.01, 0.1), compared(result.final, np.nan, np.nan, np.nan)
    assert choose(replace(result, pooled=pooled, final=final), "ewma_30").model == "logistic"


def test_requested_baselines_need_no_evidence(market: Dataset, request_for: RequestFor) -> None:
    """If only baselines are requested, the best of them is chosen."""
    report = train_on(market, request_for(models=("har", "baseline"), folds=3), lambda step: None)
    best = max(report.models, key=lambda model: model.pooled.model.pr_auc)
    assert (report.chosen, report.reason) == (best.model, "the best of the requested baselines")


def test_the_best_baseline_is_written(market: Dataset, request_for: RequestFor) -> None:
    """If a learned model is not chosen, the chosen baseline exists as an artifact, although it was not requested."""
    request = request_for(folds=3)
    report = train_on(market, request, lambda step: None)
    assert report.chosen == report.best_baseline
    artifact = Artifact.load(request.artifacts / report.chosen)
    assert artifact.name == artifact.metadata.baseline == report.best_baseline
    assert report.result(report.chosen).artifact == artifact.directory


def test_best_baseline_is_that_of_the_test_rows(market: Dataset, request_for: RequestFor) -> None:
    """No baseline has a greater PR-AUC on the pooled rows, nor on the final block, than the one compared with there."""
    report = train_on(market, request_for(models=("baseline", "har", "persistence", "logistic"), folds=4), print)
    everyone = [model for model in (*report.models, *report.baselines) if model.is_baseline]
    pooled = {model.model: model.pooled.model.pr_auc for model in everyone}
    final = {model.model: model.final.model.pr_auc for model in everyone}
    assert pooled[report.best_baseline] == max(pooled.values())
    assert final[report.final_baseline] == max(final.values())
    for model in report.models:
        assert model.pooled.baseline_name == report.best_baseline
        assert model.final.baseline_name == report.final_baseline
        assert model.folds[-1].comparison.baseline_name == report.best_baseline


def test_missed_rows_cost_ranks(market: Dataset, request_for: RequestFor) -> None:
    """Rows without a score rank last and are never flagged: a model that leaves out the spikes does not gain."""
    request = request_for()
    data = prepare_training_data(request, market)
    fold = data.fold_set.final
    complete = fit_fold("logistic", data, fold, {})
    x = market.x.copy()
    spikes = fold.test[fold.y[fold.test] == 1][::2]
    x[spikes, market.names.index("realized_volatility_300s")] = np.nan
    holed = fit_fold("logistic", prepare_training_data(request, replace(market, x=x)), fold, {})
    assert holed.test.unscored == len(spikes)
    np.testing.assert_array_equal(holed.test.rows, complete.test.rows)
    missed = holed.test.probability[~holed.test.is_scored]
    assert (missed < holed.test.probability[holed.test.is_scored].min()).all()
    assert (missed < holed.threshold).all()
    assert best_on_test_rows({"holed": [holed], "complete": [complete]}) == "complete"
