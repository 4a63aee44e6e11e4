"""Train models on one recording and store the results: ``python docs/results.py NAME FILE.parquet``.

The output, ``docs/results/NAME.json``, is the source of ``docs/performance_summary.md``. ``make results`` runs this on
every recording.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from volspike import __version__
from volspike.datasets import load_dataset
from volspike.datasets.feature_file import write_atomically
from volspike.labels import SpikeDefinition
from volspike.market import format_time
from volspike.training.report import ModelResult, TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train_on

RESULTS = Path(__file__).parent / "results"


def results_of(report: TrainingReport, spike: SpikeDefinition) -> dict[str, Any]:
    """The results of a training run on spikes of this definition as JSON values; undefined metrics are None."""
    request, shared = report.request, report.models[0].folds
    return {
        "made": format_time(time.time_ns())[:10],
        "volspike_version": __version__,
        "rows": report.rows,
        "start": report.start,
        "end": report.end,
        "products": report.products,
        "simulated": report.simulated,
        "feature_digest": report.feature_digest,
        "split": report.split_method,
        "fold_by": report.fold_by,
        "training": request.training,
        "embargo_s": report.embargo_s,
        "spike": str(spike),
        "spike_text": spike.describe(),
        "threshold": request.threshold,
        "trials": request.search,
        "seed": request.seed,
        "has_selection": report.has_selection,
        "folds": [
            {"fold": fold.fold, "block": fold.block, "is_final": fold.is_final, "test_rows": fold.test_rows}
            for fold in shared
        ],
        "best_baseline": report.best_baseline,
        "chosen": report.chosen,
        "models": [_of_model(model) for model in (*report.models, *report.baselines)],
        "warnings": report.warnings,
    }


def _of_model(model: ModelResult) -> dict[str, Any]:
    return {
        "model": model.model,
        "is_baseline": model.is_baseline,
        "features": len(model.features),
        "settings": dict(model.settings),
        "verdict": model.pooled.verdict(),
        "pooled": model.pooled.figures(),
        "final": model.final.figures(),
        "final_verdict": model.final.verdict(),
        "fold_pr_auc": [fold.comparison.figures()["model"]["pr_auc"] for fold in model.folds],
    }


def main() -> None:
    """Train on the given file and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the recording, see docs/performance.py")
    parser.add_argument("features", type=Path, help="a labelled feature file")
    parser.add_argument("--models", nargs="+", default=["all"])
    parser.add_argument("--fold-by", default="auto")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--search", type=int, default=8)
    parser.add_argument("--artifacts", type=Path, default=Path("build/results"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    request = TrainingRequest(
        features=given.features,
        models=tuple(given.models),
        artifacts=given.artifacts / given.name,
        fold_by=given.fold_by,
        folds=given.folds,
        search=given.search,
    )
    dataset = load_dataset(request.features)
    report = train_on(dataset, request, lambda step: print(step, file=sys.stderr))  # noqa: T201
    found = results_of(report, request.spike_definition(dataset.facts))
    file = given.results / f"{given.name}.json"
    with write_atomically(file) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(f"{file}: chosen {report.chosen}, best baseline {report.best_baseline}")  # noqa: T201


if __name__ == "__main__":
    main()
