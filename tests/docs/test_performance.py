"""The performance page states the results of the training run and whether the target is met."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.reporting.conftest import folder, report  # noqa: F401

from volspike.training.report import TrainingReport

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = runpy.run_path(str(DOCS / "performance.py"))
RESULTS_OF: Callable[[TrainingReport], Any] = runpy.run_path(str(DOCS / "results.py"))["results_of"]


@pytest.fixture
def run(report: TrainingReport) -> Any:  # noqa: F811
    """The results of a run as the file contains them."""
    return msgspec.json.decode(msgspec.json.encode(RESULTS_OF(report)))


def page(run: Any, folder: Path, name: str = "bitflyer") -> str:  # noqa: F811
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(run))
    return str(PAGE["performance_summary"](folder))


def test_every_model_and_baseline_is_listed(run: Any, tmp_path: Path, report: TrainingReport) -> None:  # noqa: F811
    """Each has pooled and final metrics; the chosen model, the best baseline and a simulated market are marked."""
    text = page(run, tmp_path)
    for model in (*report.models, *report.baselines):
        assert f"| `{model.model}`" in text
        assert f"{model.pooled.model.pr_auc:.3f} (" in text
        assert f"{model.final.model.pr_auc:.3f}" in text
        assert f"{model.pooled.folds.pr_auc.model:.3f}" in text
    assert f"`{report.best_baseline}` (" in text
    assert "chosen" in text
    assert "SIMULATED" in text
    assert "`make results` writes `docs/results/coinbase.json`" in text


def verdicts(run: Any, ours: float, theirs: float, ends: tuple[float, float], verdict: str) -> tuple[str, str]:
    """The verdict on each recording if the chosen model and the best baseline have these metrics."""
    best = run["best_baseline"]
    chosen = next(model for model in run["models"] if model["model"] != best)
    run = run | {"chosen": chosen["model"]}
    figures = chosen["pooled"]["model"] | {"pr_auc": ours, "pr_auc_gain": ours - theirs}
    figures |= {"pr_auc_gain_low": ends[0], "pr_auc_gain_high": ends[1]}
    chosen["pooled"] |= {"model": figures, best: chosen["pooled"].get(best, {}) | {"pr_auc": theirs}}
    folds = chosen["pooled"]["folds"] | {"model": ours, "baseline": theirs, "gain": ours - theirs}
    chosen["pooled"] |= {"folds": folds}
    chosen["verdict"] = verdict
    bitflyer, coinbase = (PAGE["reached"](recording, run, chosen) for recording in PAGE["RECORDINGS"])
    return bitflyer, coinbase


@pytest.mark.parametrize(
    ("ours", "theirs", "ends", "verdict", "bitflyer", "coinbase"),
    [
        (0.50, 0.40, (0.05, 0.15), "better", "yes. ", "yes. "),
        (0.50, 0.40, (-0.05, 0.25), "not shown to differ", "no. ", "yes. "),
        (0.44, 0.40, (0.01, 0.07), "better", "no. ", "yes. "),
        (0.39, 0.40, (-0.05, 0.03), "not shown to differ", "no. ", "no. "),
    ],
)
def test_the_target_is_compared_with_the_result(
    run: Any, ours: float, theirs: float, ends: tuple[float, float], verdict: str, bitflyer: str, coinbase: str
) -> None:
    """bitFlyer requires 20 % more and an interval above zero, Coinbase at least the baseline."""
    verdict_texts = verdicts(run, ours, theirs, ends, verdict)
    assert verdict_texts[0].startswith(bitflyer)
    assert verdict_texts[1].startswith(coinbase)
    assert f"{100 * (ours / theirs - 1):+.0f} %" in verdict_texts[0]


def test_a_chosen_baseline_misses_the_target(run: Any) -> None:
    """If the best baseline itself is chosen, no model beats it and the target is missed."""
    run = run | {"chosen": run["best_baseline"]}
    chosen = next(model for model in run["models"] if model["model"] == run["chosen"])
    for recording in PAGE["RECORDINGS"]:
        assert PAGE["reached"](recording, run, chosen).startswith("no. ")


def test_the_mean_per_fold_must_reach_the_target_too(run: Any) -> None:
    """20 % more in the pool and 5 % more per fold misses the target."""
    best = run["best_baseline"]
    chosen = next(model for model in run["models"] if model["model"] != best)
    figures = chosen["pooled"]["model"] | {"pr_auc": 0.5, "pr_auc_gain": 0.1, "pr_auc_gain_low": 0.05}
    folds = chosen["pooled"]["folds"] | {"model": 0.42, "baseline": 0.4}
    chosen["pooled"] |= {"model": figures, best: chosen["pooled"].get(best, {}) | {"pr_auc": 0.4}, "folds": folds}
    text = PAGE["reached"](PAGE["RECORDINGS"][0], run | {"chosen": chosen["model"]}, chosen)
    assert text.startswith("no. ")
    assert "+25 %" in text
    assert "+5 %" in text
