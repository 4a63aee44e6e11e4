"""The page on the models' performance says what the training run found, and what came of what was asked."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.reporting.conftest import folder, report  # noqa: F401

from volspike.training import TrainingReport

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = runpy.run_path(str(DOCS / "performance.py"))
COLLECTED: Callable[[TrainingReport], Any] = runpy.run_path(str(DOCS / "results.py"))["collected"]


@pytest.fixture
def told(report: TrainingReport) -> Any:  # noqa: F811
    """The figures of a run as the file holds them."""
    return msgspec.json.decode(msgspec.json.encode(COLLECTED(report)))


def page(told: Any, folder: Path, name: str = "bitflyer") -> str:  # noqa: F811
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(told))
    return str(PAGE["performance_summary"](folder))


def test_every_model_and_baseline_stands_there(told: Any, tmp_path: Path, report: TrainingReport) -> None:  # noqa: F811
    """Each has its pooled and final figures; the chosen, the best baseline and a simulated market are named."""
    text = page(told, tmp_path)
    for model in (*report.models, *report.baselines):
        assert f"| `{model.model}`" in text
        assert f"{model.pooled.model.pr_auc:.3f} (" in text
        assert f"{model.final.model.pr_auc:.3f}" in text
        assert f"{model.pooled.folds.model:.3f}" in text
    assert f"`{report.best_baseline}` (" in text
    assert "chosen" in text
    assert "SIMULATED" in text
    assert "`make results` writes `docs/results/coinbase.json`" in text


def outcome(told: Any, ours: float, theirs: float, ends: tuple[float, float], verdict: str) -> tuple[str, str]:
    """What is said of either recording where the chosen model and the best baseline have these figures."""
    best = told["best_baseline"]
    chosen = next(model for model in told["models"] if model["model"] != best)
    told = told | {"chosen": chosen["model"]}
    figures = chosen["pooled"]["model"] | {"pr_auc": ours, "pr_auc_gain": ours - theirs}
    figures |= {"pr_auc_gain_low": ends[0], "pr_auc_gain_high": ends[1]}
    chosen["pooled"] |= {"model": figures, best: chosen["pooled"].get(best, {}) | {"pr_auc": theirs}}
    folds = chosen["pooled"]["folds"] | {"model": ours, "baseline": theirs, "gain": ours - theirs}
    chosen["pooled"] |= {"folds": folds}
    chosen["verdict"] = verdict
    bitflyer, coinbase = (PAGE["reached"](recording, told, chosen) for recording in PAGE["RECORDINGS"])
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
def test_what_was_asked_is_held_against_what_was_reached(
    told: Any, ours: float, theirs: float, ends: tuple[float, float], verdict: str, bitflyer: str, coinbase: str
) -> None:
    """A fifth more and clear of zero on bitFlyer, not below the baseline on Coinbase."""
    said = outcome(told, ours, theirs, ends, verdict)
    assert said[0].startswith(bitflyer)
    assert said[1].startswith(coinbase)
    assert f"{100 * (ours / theirs - 1):+.0f} %" in said[0]


def test_a_baseline_chosen_is_no_success(told: Any) -> None:
    """Where the best baseline itself is chosen, no model beat it, and that is said."""
    told = told | {"chosen": told["best_baseline"]}
    chosen = next(model for model in told["models"] if model["model"] == told["chosen"])
    for recording in PAGE["RECORDINGS"]:
        assert PAGE["reached"](recording, told, chosen).startswith("no. ")


def test_a_fifth_more_in_the_pool_alone_is_not_enough(told: Any) -> None:
    """The mean of the days is held to the same measure, and what hindsight would reach is told for scale."""
    best = told["best_baseline"]
    told = told | {"hindsight": {"pr_auc": 0.44, "mean_per_fold": 0.43, "rows": 1000}}
    chosen = next(model for model in told["models"] if model["model"] != best)
    figures = chosen["pooled"]["model"] | {"pr_auc": 0.5, "pr_auc_gain": 0.1, "pr_auc_gain_low": 0.05}
    folds = chosen["pooled"]["folds"] | {"model": 0.42, "baseline": 0.4}
    chosen["pooled"] |= {"model": figures, best: chosen["pooled"].get(best, {}) | {"pr_auc": 0.4}, "folds": folds}
    said = PAGE["reached"](PAGE["RECORDINGS"][0], told | {"chosen": chosen["model"]}, chosen)
    assert said.startswith("no. ")
    assert "+25 %" in said
    assert "+5 %" in said
    assert "0.440 pooled (+10 %) and 0.430 as mean per fold" in said
