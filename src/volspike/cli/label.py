"""``volspike label``: labels for a feature file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli import options
from volspike.cli.replay import print_labels
from volspike.cli.screen import note_if_simulated, out, working

EXAMPLES = "Example: volspike label --features data/processed/features.parquet --spike jump:2"


def run(
    features: Annotated[Path, typer.Option(help="Feature file to label.")],
    output: Annotated[Path | None, typer.Option(help="File to write (default: the same file).")] = None,
    threshold_percentile: options.Percentile = 90.0,
    gap_threshold_seconds: options.SessionGap = 300.0,
    tau: Annotated[
        float | None, typer.Option(help="Use this τ instead of a percentile; as --spike fixed:VALUE.")
    ] = None,
    spike: options.Spike = None,
    horizon: options.Horizon = 60,
    every: options.RowRate = None,
    profile: options.KindsOfTicks = None,
    origin: options.Origin = None,
) -> None:
    """Add future_volatility, volatility_spike and tau to a feature file."""
    from volspike.datasets.build import label_file

    options.require_file("--output", output, ".parquet")
    target = output or features
    definition = options.spike_definition(spike, threshold_percentile, tau)
    supplied = options.supplied_facts(every, profile, origin)
    with working("labelling") as show:
        result = label_file(features, target, definition, gap_threshold_seconds, horizon, show, supplied)
    note_if_simulated(result.facts.simulated)
    out.print(f"{result.rows:,} rows → {target}")
    print_labels(result)
