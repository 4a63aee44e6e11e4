"""``volspike consolidate``: several feature files merged into one, and split on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli import options
from volspike.cli.replay import print_labels
from volspike.cli.screen import note_if_simulated, out, warn, working
from volspike.errors import NotEnoughData, UsageError

EXAMPLES = "Example: volspike consolidate --splits"

STRATIFIED_IS_NO_EVIDENCE = (
    "a stratified split puts overlapping windows into both parts: on pure noise it reaches a PR-AUC of 0.92-0.95, "
    "while an honest split reaches the base rate; its figures are not evidence"
)


def run(
    features: Annotated[list[str], typer.Option(help="Feature files or globs.")] = ["data/processed/features*.parquet"],  # noqa: B006
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("data/processed/features_consolidated.parquet"),
    splits: Annotated[bool, typer.Option("--splits", help="Also write the _train, _val and _test files.")] = False,
    split_method: Annotated[
        str, typer.Option(help="walk_forward (newest fold), time_based or stratified.")
    ] = "time_based",
    threshold_percentile: options.Percentile = 90.0,
    spike: options.Spike = None,
    horizon: options.Horizon = 60,
    every: options.RowRate = None,
    profile: options.KindsOfTicks = None,
    origin: options.Origin = None,
) -> None:
    """Merge feature files without duplicate rows, label the result, and split it on request."""
    from volspike.datasets import SPLIT_METHODS
    from volspike.datasets.consolidate import consolidate, write_parts

    if split_method not in SPLIT_METHODS:
        raise UsageError(f"unknown split method {split_method!r}; use one of {', '.join(SPLIT_METHODS)}")
    options.require_file("--output", output, ".parquet")
    definition = options.spike_definition(spike, threshold_percentile)
    supplied = options.supplied_facts(every, profile, origin)
    with working("consolidating") as show:
        result = consolidate(
            _files(features, output), output, definition, horizon=horizon, on_step=show, supplied=supplied
        )
    note_if_simulated(result.labels.facts.simulated)
    out.print(
        f"{len(result.files)} files, {result.read:,} rows, {result.duplicates:,} of them duplicates → "
        f"{result.labels.rows:,} rows in {output}"
    )
    print_labels(result.labels)
    if not splits:
        return
    if split_method == "stratified":
        warn(STRATIFIED_IS_NO_EVIDENCE)
    try:
        parts, written = write_parts(output, split_method)
    except NotEnoughData as error:
        raise NotEnoughData(
            f"{output} is written, its parts are not: {error}; --split-method stratified always has parts, but "
            "no evidence"
        ) from error
    for name, path in written.items():
        out.print(f"{name}: {len(getattr(parts, name)):,} rows → {path}")


def _files(patterns: list[str], output: Path) -> list[Path]:
    """The matching files in order, without the output of an earlier consolidation."""
    from volspike.tape.names import expand_pattern

    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        matches = sorted(expand_pattern(path)) if path.name else []
        if not matches:
            raise UsageError(f"no feature file matches {pattern}; make one with `volspike replay`")
        found += matches
    outputs = {output.with_name(f"{output.stem}{ending}{output.suffix}") for ending in ("", "_train", "_val", "_test")}
    files = [path for path in dict.fromkeys(found) if path not in outputs]
    if not files:
        raise UsageError(f"{', '.join(patterns)} matches only files of an earlier consolidation")
    return files
