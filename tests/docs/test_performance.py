"""The performance page states the results of the training run and whether the target is met."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.reporting.conftest import folder, report  # noqa: F401

from volspike.labels import SpikeDefinition
from volspike.training.report import TrainingReport

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = runpy.run_path(str(DOCS / "performance.py"))
RESULTS_OF: Callable[[TrainingReport, SpikeDefinition], Any] = runpy.run_path(str(DOCS / "results.py"))["results_of"]


@pytest.fixture
def run(report: TrainingReport) -> Any:  # noqa: F811
    """The results of a run as the file contains them."""
    return msgspec.json.decode(msgspec.json.encode(RESULTS_OF(report, SpikeDefinition.parse("percentile:90"))))


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
        assert f"{model.pooled.figures()['calm']['model']:.3f} (" in text
    assert f"`{report.best_baseline}` (" in text
    assert "chosen" in text
    assert "SIMULATED" in text
    assert "`make results` writes `docs/results/coinbase.json`" in text


def with_scores(run: Any, scores: dict[str, tuple[float, float, float]]) -> tuple[Any, Any]:
    """The run and its best learned model with these metrics of each part of the rows.

    They are the model's PR-AUC, that of the best baseline, and the lower end of the multiple; every other
    baseline has 0.1.
    """
    best = run["best_baseline"]
    learned = PAGE["learned"](run)
    for part, (ours, theirs, low) in scores.items():
        for model in run["models"]:
            model["pooled"][part] |= {"model": theirs if model["model"] == best else 0.1}
        learned["pooled"][part] |= {"model": ours, "ratio_low": low, "ratio_high": 2.0}
    return run, learned


@pytest.mark.parametrize(
    ("pooled", "calm", "is_reached"),
    [
        ((0.56, 0.50, 1.05), (0.30, 0.20, 1.2), True),
        ((0.54, 0.50, 1.05), (0.30, 0.20, 1.2), False),
        ((0.56, 0.50, 0.95), (0.30, 0.20, 1.2), False),
        ((0.56, 0.50, 1.05), (0.27, 0.20, 1.2), False),
        ((0.56, 0.50, 1.05), (0.30, 0.20, 0.9), False),
    ],
)
def test_the_target_is_compared_with_the_result(
    run: Any, tmp_path: Path, pooled: tuple[float, float, float], calm: tuple[float, float, float], is_reached: bool
) -> None:
    """bitFlyer requires ×1.10 pooled and ×1.40 in calm rows, both with intervals above ×1; the overview has both."""
    changed, _ = with_scores(run, {"pr_auc": pooled, "calm": calm})
    text = PAGE["reached"](PAGE["RECORDINGS"][0], changed)
    assert text.startswith("yes. " if is_reached else "no. ")
    overview = next(line for line in page(changed, tmp_path).splitlines() if line.startswith("| bitFlyer 2018, 90th"))
    assert f"×{pooled[0] / pooled[1]:.2f} ({pooled[2]:.2f} … 2.00)" in overview
    assert f"×{calm[0] / calm[1]:.2f} ({calm[2]:.2f} … 2.00)" in overview
    assert overview.split(" | ")[-2] == ("yes" if is_reached else "no")


def test_a_multiple_within_its_interval_is_uncertain(run: Any) -> None:
    """Where only the multiple has a target, an interval that includes 1 or is unknown is stated."""
    recording = next(each for each in PAGE["RECORDINGS"] if each.calm is not None and not each.is_certain)
    for low, word in ((1.1, "yes. "), (0.9, "uncertain. ")):
        changed, _ = with_scores(run, {"pr_auc": (0.6, 0.5, 1.1), "calm": (0.3, 0.2, low)})
        assert PAGE["reached"](recording, changed).startswith(word)


def test_a_multiple_is_of_the_baseline_that_is_best_on_the_same_rows(run: Any) -> None:
    """Another baseline may be best in calm rows; the run has no interval for it."""
    changed, learned = with_scores(run, {"pr_auc": (0.6, 0.5, 1.1), "calm": (0.3, 0.2, 1.1)})
    other = next(
        model for model in changed["models"] if model["is_baseline"] and model["model"] != changed["best_baseline"]
    )
    other["pooled"]["calm"] |= {"model": 0.25}
    found = PAGE["multiple"](learned, changed, "calm")
    assert found.value == pytest.approx(0.3 / 0.25)
    assert (found.baseline, found.low, found.high) == (other["model"], None, None)


def test_a_chosen_baseline_is_stated(run: Any) -> None:
    """If the best baseline itself is served, the page says so and why."""
    for chosen, words in ((run["best_baseline"], "The best baseline, "), (PAGE["learned"](run)["model"], "was chosen")):
        assert words in PAGE["reached"](PAGE["RECORDINGS"][0], run | {"chosen": chosen})
