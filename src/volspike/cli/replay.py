"""``volspike replay``: recorded tapes to a feature file, with the kernel that runs live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli import options
from volspike.cli.screen import note_if_simulated, out, print_tape_report, reading, warn, working
from volspike.errors import SchemaMismatch, UsageError

if TYPE_CHECKING:
    from volspike.datasets.build import BuildResult, LabelResult
    from volspike.features import Every, FeatureSet
    from volspike.market import Gap

EXAMPLES = 'Example: volspike replay --raw "data/raw/*.ndjson" --out data/processed/features.parquet --add-labels'


def run(
    raw: Annotated[list[str], typer.Option(help="Tapes, folders or globs; several are read in time order.")],
    out_file: Annotated[Path, typer.Option("--out", help="Feature file to write (Parquet).")],
    windows: Annotated[list[int], typer.Option(help="Window lengths in seconds.")] = [30, 60, 300],  # noqa: B006
    feature_set: Annotated[
        str,
        typer.Option(
            help="core (7 families), full (and 114 scale-free features) or deep (and the last 60 s); `full+NAME` adds "
            "the extra features NAME of an installed distribution."
        ),
    ] = "full",
    leader: Annotated[
        str | None,
        typer.Option(help="Product (`venue:product`) whose volatility, returns and price are added to every row."),
    ] = None,
    every: Annotated[str, typer.Option(help="A row per `tick` or per second (`1s`).")] = "tick",
    profile: Annotated[
        str, typer.Option(help="Kinds of ticks: ticker, ticker+trade, trade, or `auto` to detect them.")
    ] = "auto",
    timezone: options.Timezone = None,
    origin: options.Origin = None,
    engine: Annotated[
        str,
        typer.Option(
            help="`local` uses the cores of this machine (one pass, below 500 MB of memory), `ray` a cluster."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that share the tapes and sessions, for machines with many cores, 0.5 GB each (default: one "
            "pass).",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster whose nodes see the tapes under the same path (default: a local one)."),
    ] = None,
    add_labels: Annotated[
        bool, typer.Option("--add-labels", help="Add future_volatility, volatility_spike and tau.")
    ] = False,
    spike: options.Spike = None,
    horizon: options.Horizon = 60,
    label_threshold_percentile: options.Percentile = 90.0,
    label_gap_threshold_seconds: options.SessionGap = 300.0,
    compare: Annotated[
        Path | None, typer.Option(help="Compare the result with this feature file, bit for bit.")
    ] = None,
    compare_labels: Annotated[bool, typer.Option("--compare-labels", help="Compare the labels too.")] = False,
) -> None:
    """Replay recorded tapes through the feature engine into a Parquet file."""
    from volspike.datasets.build import build_features, label_file
    from volspike.datasets.engines import create_engine
    from volspike.datasets.feature_file import write_atomically
    from volspike.features import FeatureSet

    definition = options.spike_definition(spike, label_threshold_percentile)
    features, rate, kinds = (
        FeatureSet.of(windows, feature_set, leader),
        options.every_of(every),
        options.profile_of(profile),
    )
    _refuse_overwriting(raw, out_file, compare)
    options.require_file("--out", out_file, ".parquet")
    if compare is not None:
        _check_comparable(compare, features, rate)
    gaps, simulated = _gaps(raw), options.is_simulated(origin)
    with write_atomically(out_file) as part:
        with create_engine(engine, workers, ray_address) as workers_engine, reading("replaying") as show:
            result = build_features(raw, part, features, rate, kinds, gaps, show, workers_engine, timezone, simulated)
        print_tape_report(result.report)
        dropped = result.describe_dropped()
        if dropped is not None:
            warn(dropped)
        _warn_without_leader(features, result)
        labels = None
        if add_labels:
            with working("labelling") as step:
                labels = label_file(part, part, definition, label_gap_threshold_seconds, horizon, step)
    note_if_simulated(result.facts.simulated)
    out.print(
        f"{result.rows:,} rows of {len(features.names)} features from {result.report.ticks:,} ticks "
        f"(profile {result.facts.profile}, every {result.facts.every}) → {out_file}"
    )
    if labels is not None:
        print_labels(labels)
    if compare is not None:
        _compare(out_file, compare, compare_labels)


def _gaps(raw: list[str]) -> list[Gap]:
    """The gaps in the ledgers next to the tapes."""
    from volspike.tape import ledgers_of, tapes_of

    return ledgers_of(tapes_of(raw)).gaps


def print_labels(labels: LabelResult) -> None:
    """Prints the number of labelled rows, the share of spikes, and τ."""
    facts = labels.facts
    share = f"{labels.spikes / labels.labelled:.2%}" if labels.labelled else "no"
    tau = facts.spike if facts.tau is None else f"τ = {facts.tau:.3e}"
    out.print(f"{labels.labelled:,} rows labelled, {share} spikes at {tau} ({facts.tau_from})")


def _refuse_overwriting(raw: list[str], out_file: Path, compare: Path | None) -> None:
    """Raises before the replay if the result would overwrite an input."""
    from volspike.datasets.feature_file import open_feature_file
    from volspike.tape import tapes_of

    if out_file.resolve() in {tape.resolve() for tape in tapes_of(raw)}:
        raise UsageError(f"--out {out_file} is one of the tapes to read: give the feature file another name")
    if compare is not None:
        if compare.resolve() == out_file.resolve():
            raise UsageError(f"--out would replace {compare} before --compare reads it: give --out another name")
        open_feature_file(compare).close()


def _check_comparable(path: Path, features: FeatureSet, every: Every) -> None:
    """Raises before the replay if no row of the file could equal one of the result."""
    from volspike.datasets.feature_file import facts_of, open_feature_file

    with open_feature_file(path) as file:
        facts = facts_of(path, file)
    if facts.every is not every:
        raise SchemaMismatch(
            f"row rates differ: {path} has a row every {facts.every}, this replay makes one every {every}",
            remedy=f"replay with --every {facts.every}",
        )
    if facts.digest != features.digest:
        raise SchemaMismatch(
            f"feature sets differ: {path} has digest {facts.digest}, this replay {features.digest}",
            remedy="replay with the --feature-set, --windows and --leader of that file",
        )


def _warn_without_leader(features: FeatureSet, result: BuildResult) -> None:
    products = result.report.products
    if features.leader is not None and features.leader not in products:
        warn(
            f"no tick of the leader {features.leader} in these tapes (products: {', '.join(sorted(products))}): its "
            "features are missing in every row; add its tape to --raw or name one of these with --leader"
        )


def _compare(ours: Path, theirs: Path, labels: bool) -> None:
    from volspike.datasets.dataset import compare

    found = compare(ours, theirs, labels)
    if found.is_equal:
        out.print(f"equal to {theirs} bit for bit: {found.common:,} rows")
        return
    only = f"{found.only_first:,} rows only here, {found.only_second:,} only in {theirs}"
    columns = ", ".join(f"{name} ({rows:,} rows, ≤ {gap:.3g})" for name, (rows, gap) in found.differing.items())
    warn(f"differs: {found.common:,} rows in common, {only}; differing columns: {columns or 'none'}")
    raise typer.Exit(3)
