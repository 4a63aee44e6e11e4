"""``volspike backtest``: the alerts that a model would have sent on recorded rows, and what they caught."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from volspike.cli.options import Spike, Venue, require_folder
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.reporting.backtest import AlarmCost, Backtest
    from volspike.reporting.format import Table

EXAMPLES = "Example: volspike backtest --features data/processed/features.parquet --model default --budget 30m/day"

SHIPPED = "default"
MOST_ALERTS = 40
"""Alerts printed, the newest; ``--out`` and ``--json`` have all."""


def run(
    features: Annotated[Path, typer.Option(help="Labelled feature file.")],
    model: Annotated[
        Path, typer.Option(help="Folder of an artifact, or a file in it; default is the shipped model.")
    ] = Path(SHIPPED),
    spike: Spike = None,
    venue: Venue = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Minutes of alarm per day, as 30m/day: the threshold follows the model's own alarms."),
    ] = None,
    alert_threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Probability from which a product alerts instead of the model's threshold, as BTC-USD=0.4, "
            "binance:*=0.5 or 0.5 for all."
        ),
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="Cost of a missed onset and of an alert, as miss=20,alarm=1.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for backtest.html, alerts.csv, curve.csv and days.csv.")
    ] = None,
) -> None:
    """Replay a model's alerts on recorded rows: what they caught, what they missed, and what they cost."""
    from volspike.datasets import load_dataset
    from volspike.labels import SpikeDefinition
    from volspike.models import DEFAULT_MODEL, Artifact
    from volspike.models.alert_thresholds import AlertThresholds
    from volspike.reporting.backtest import BacktestRequest, run_backtest

    require_folder("--out", out_folder)
    request = BacktestRequest(
        spike=None if spike is None else SpikeDefinition.parse(spike),
        budget=None if budget is None else parse_budget(budget),
        thresholds=AlertThresholds.parse(alert_threshold or ()),
        cost=None if cost is None else parse_cost(cost),
        venue=venue,
    )
    is_shipped = str(model) == SHIPPED and not model.exists()
    artifact = Artifact.load(DEFAULT_MODEL if is_shipped else model)
    with working("backtesting") as show:
        backtest = run_backtest(artifact, features, load_dataset(features), request, show)
        written = _write(backtest, out_folder)
    for sentence in backtest.warnings:
        warn(sentence)
    if json:
        out.print(msgspec.json.format(msgspec.json.encode(backtest.figures())).decode())
        return
    print_result(backtest)
    for file in written:
        out.print(f"→ {file}")


def _write(backtest: Backtest, folder: Path | None) -> tuple[Path, ...]:
    from volspike.reporting.backtest_page import write_backtest

    return () if folder is None else write_backtest(backtest, folder)


_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:m|min)?(?:/day|/d)?")


def parse_budget(text: str) -> float:
    """The minutes per day of a text such as ``30m/day``.

    >>> parse_budget("30m/day")
    30.0

    Raises:
        UsageError: it is no such text, or not above 0 and below a day.
    """
    found = _BUDGET.fullmatch(text.strip())
    minutes = float(found[1]) if found else 0.0
    if not 0.0 < minutes < 1440.0:
        raise UsageError(f"--budget takes minutes of alarm per day above 0 and below 1440, as 30m/day, got {text!r}")
    return minutes


def parse_cost(text: str) -> AlarmCost:
    """The costs of a text such as ``miss=20,alarm=1``.

    Raises:
        UsageError: it is no such text, or a cost is negative.
    """
    from volspike.reporting.backtest import AlarmCost

    try:
        costs = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        costs = {}
    if set(costs) != {"miss", "alarm"} or not all(0.0 <= value < float("inf") for value in costs.values()):
        raise UsageError(f"--cost takes two costs of at least 0, as miss=20,alarm=1, got {text!r}")
    return AlarmCost(**costs)


def print_result(backtest: Backtest) -> None:
    """Prints the tables of a backtest and a summary."""
    from volspike.reporting.alert_history import alert_table
    from volspike.reporting.backtest_page import day_table
    from volspike.reporting.format import budget_table, headline_table

    note_if_simulated(backtest.simulated)
    shown = backtest.alerts[-MOST_ALERTS:]
    more = f", the newest {len(shown)} of {len(backtest.alerts)}" if len(shown) < len(backtest.alerts) else ""
    _print(f"Alerts{more}", alert_table(shown))
    _print("Onsets caught at budgets of alarm minutes", budget_table(backtest.metadata.model, backtest.comparison))
    _print(
        f"PR-AUC against {backtest.comparison.baseline_name}, the best baseline",
        headline_table(backtest.metadata.model, backtest.comparison),
    )
    _print("Days", day_table(backtest))
    for sentence in summary(backtest):
        out.print(sentence)


def _print(title: str, shown: Table) -> None:
    table(title, shown.heads, shown.rows, shown.texts)


def summary(backtest: Backtest) -> list[str]:
    """The result in a few sentences."""
    events, compared = backtest.comparison.model_events, backtest.comparison
    each = " and product" if len(backtest.products) > 1 else ""
    budget = "" if backtest.budget is None else f" (budget {backtest.budget:g})"
    if backtest.request.thresholds:
        budget = f" at {backtest.threshold_text}"
    rows = (
        f"{len(backtest.scored):,} rows of {', '.join(backtest.products)}, {events.hours:.1f} h, spike definition "
        f"{backtest.spike}, base rate {figure(compared.model.base_rate)}, {events.episodes} spike events"
    )
    alerts = (
        f"{events.alarms} alerts, {events.alarms - events.true_alarms} of them false, "
        f"{backtest.alarm_minutes_per_day:.1f} minutes of alarm per day{each}{budget}"
    )
    onsets = (
        f"{events.onsets_caught} of {events.onsets} onsets caught in time, median lead "
        f"{figure(backtest.median_lead_s, 0)} s; {compared.baseline_name} catches "
        f"{compared.baseline_events.onsets_caught} with as many minutes"
    )
    sentences = [rows, alerts, onsets]
    if backtest.request.cost is not None:
        sentences.append(f"cost {backtest.cost:,.1f}; without alerts {backtest.cost_without_alerts:,.1f}")
    return sentences
