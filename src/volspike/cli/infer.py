"""``volspike infer``: a model applied to a feature file, timed row by row or replayed as if live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from volspike.cli.options import Venue
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, warn_of_limitations, working
from volspike.errors import NotEnoughData, UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volspike.datasets import Dataset
    from volspike.models import Artifact

EXAMPLES = (
    "Example: volspike infer --model models/artifacts/random_forest --features data/processed/features.parquet "
    "--mode benchmark --n-samples 1000"
)

MODES = ("benchmark", "live")
SHOW_EVERY_ROWS = 1000
WARM_UP_ROWS = 50
REAL_TIME_S = 120.0
"""The earlier system's requirement: inference within twice the horizon of 60 s."""


def run(
    model: Annotated[Path, typer.Option(help="Folder of an artifact, or a file in it.")],
    features: Annotated[Path, typer.Option(help="Feature file.")],
    mode: Annotated[
        str, typer.Option(help="benchmark: time and evaluate; live: row by row with alerts.")
    ] = "benchmark",
    n_samples: Annotated[int, typer.Option(help="Number of newest rows to use.")] = 1000,
    venue: Venue = None,
) -> None:
    """Score the newest rows of a feature file with a model."""
    from volspike.datasets import load_dataset
    from volspike.models import Artifact
    from volspike.models.evidence import all_limitations, dataset_markets, describe_training

    if mode not in MODES or n_samples < 1:
        raise UsageError(
            f"--mode must be one of {', '.join(MODES)} and --n-samples at least 1, got {mode!r} and {n_samples}"
        )
    artifact = Artifact.load(model)
    dataset = load_dataset(features, labelled=False)
    artifact.check_dataset(dataset)
    note_if_simulated(dataset.facts.simulated or artifact.metadata.simulated)
    newest = np.arange(max(0, len(dataset) - n_samples), len(dataset))
    markets = dataset_markets(dataset.only(newest), venue)
    limitations = all_limitations(
        artifact.metadata,
        markets,
        simulated=dataset.facts.simulated,
        profile=dataset.facts.profile,
    )
    out.print(describe_training(artifact.metadata))
    warn_of_limitations(artifact.name, limitations)
    if mode == "benchmark":
        _benchmark(artifact, dataset, newest)
    else:
        tau = dataset.thresholds(artifact.metadata.spike_definition, artifact.metadata.tau)
        _live(artifact, dataset, newest, tau)


def _benchmark(artifact: Artifact, dataset: Dataset, rows: NDArray[np.intp]) -> None:
    tau = dataset.thresholds(artifact.metadata.spike_definition, artifact.metadata.tau)
    x = dataset.inputs(artifact.features, tau, rows)
    took = _timed(artifact, x, tau[rows])
    middle, high, highest = np.percentile(took, [50, 95, 99])
    start = time.perf_counter()
    probability = artifact.probability(x, tau[rows])
    batch = time.perf_counter() - start
    table(
        f"{artifact.name}: {len(rows):,} rows, one at a time and as one batch",
        ("", "p50", "p95", "p99", "longest", "rows/s"),
        [
            [
                "one row",
                *(f"{value * 1e6:.1f} µs" for value in (middle, high, highest, took.max())),
                f"{1 / took.mean():,.0f}",
            ],
            ["batch", f"{batch / len(rows) * 1e6:.2f} µs", "–", "–", "–", f"{len(rows) / batch:,.0f}"],
        ],
    )
    out.print(f"required: under {REAL_TIME_S:.0f} s per row; slowest {took.max():.6f} s")
    calibrated = probability if artifact.metadata.adaptation is None else artifact.score_rows(dataset, rows)
    _evaluate(artifact, dataset, rows, calibrated, tau[rows])


def _timed(artifact: Artifact, x: NDArray[np.float64], tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds for each row alone."""
    values = list(zip(x.tolist(), tau.tolist(), strict=True))
    for row, threshold in values[:WARM_UP_ROWS]:
        artifact.probability_of(row, threshold)
    took = np.empty(len(values))
    with working("scoring") as show:
        for index, (row, threshold) in enumerate(values):
            if index % SHOW_EVERY_ROWS == 0:
                show(Step(f"{index:,} of {len(values):,} rows", index / len(values)))
            start = time.perf_counter()
            artifact.probability_of(row, threshold)
            took[index] = time.perf_counter() - start
    return took


def _evaluate(
    artifact: Artifact,
    dataset: Dataset,
    rows: NDArray[np.intp],
    probability: NDArray[np.float64],
    tau: NDArray[np.float64],
) -> None:
    """Prints PR-AUC next to persistence on rows with a known outcome."""
    from volspike.evaluation import evaluate_scores
    from volspike.labels import spikes

    future, persistence = dataset.future_volatility[rows], dataset.persistence[rows]
    known = np.isfinite(future) & np.isfinite(probability) & np.isfinite(persistence) & np.isfinite(tau)
    if not known.any():
        warn("no row has both a probability and a known future, so nothing is evaluated; label the file first")
        return
    y = spikes(future[known], tau[known])
    found = evaluate_scores(y, probability[known], artifact.threshold)
    baseline = evaluate_scores(y, persistence[known] / tau[known], np.inf, is_probability=False)
    out.print(
        f"{found.rows:,} rows, base rate {figure(found.base_rate)}: PR-AUC {figure(found.pr_auc)} "
        f"(persistence {figure(baseline.pr_auc)}), precision {figure(found.precision)}, recall {figure(found.recall)} "
        f"at threshold {figure(artifact.threshold)}"
    )


def _live(artifact: Artifact, dataset: Dataset, rows: NDArray[np.intp], tau: NDArray[np.float64]) -> None:
    """Prints when an alert of a product opens and closes."""
    from volspike.episodes import SeriesOrder, alarm_runs
    from volspike.market import format_time

    with working(f"scoring {len(dataset):,} rows"):
        every_row = artifact.score_rows(dataset, np.arange(len(dataset)))
    thresholds = artifact.alert_thresholds(dataset, every_row, tau)
    series = SeriesOrder.of(dataset.time, dataset.product)
    is_open = np.empty(len(dataset), np.bool_)
    may_open = dataset.is_calm(tau) if artifact.holds_budget else True
    is_open[series.order] = alarm_runs(series, every_row, thresholds, may_open).mask(len(dataset))
    alarmed: set[int] = set()
    scored = alerts = 0
    for row in rows.tolist():
        probability, threshold, is_alert = every_row[row], thresholds[row], bool(is_open[row])
        if np.isnan(probability):
            continue
        scored += 1
        product = int(dataset.product[row])
        if is_alert != (product in alarmed):
            alarmed ^= {product}
            alerts += is_alert
            what = "ALERT" if is_alert else "calm "
            when, name = format_time(int(dataset.time[row])), dataset.products[product]
            out.print(f"{when:30} {name:10} {what} {probability:.4f} (threshold {threshold:.4f})")
    if scored == 0:
        raise NotEnoughData(f"none of the {len(rows):,} rows has every feature that {artifact.name} needs")
    out.print(f"{scored:,} rows scored, {alerts:,} alerts")
