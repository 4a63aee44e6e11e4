"""``volspike featurize``: ticks in Kafka to feature rows in Kafka, and to a file on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli import options
from volspike.cli.replay import print_labels
from volspike.cli.screen import note_if_simulated, out, warn, warn_of_limitations
from volspike.errors import UsageError

EXAMPLES = "Example: volspike featurize --output-file data/processed/features.parquet"


def run(
    topic_in: Annotated[
        str | None, typer.Option(help="Topic of the ticks (env KAFKA_TOPIC_RAW; default ticks.raw).")
    ] = None,
    topic_out: Annotated[
        str | None, typer.Option(help="Topic for the rows (env KAFKA_TOPIC_FEATURES; default ticks.features).")
    ] = None,
    bootstrap_servers: options.Servers = None,
    kafka_option: options.Options = None,
    output_file: Annotated[
        Path | None, typer.Option(help="Also write the rows to this Parquet file: in parts first, merged at the end.")
    ] = None,
    model: options.StreamModel = None,
    windows: Annotated[
        list[int] | None, typer.Option(help="Window lengths in seconds (default: those of the model).")
    ] = None,
    feature_set: Annotated[
        str | None,
        typer.Option(
            help="core (7 families), full (and 114 scale-free features) or deep (and the last 60 s); `full+NAME` adds "
            "the extra features NAME of an installed distribution; default: that of the model."
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="A row per `tick` or per second (`1s`); default: that of the model.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Kinds of ticks: ticker, ticker+trade or trade; default: that of the model."),
    ] = None,
    add_labels: Annotated[
        bool, typer.Option("--add-labels/--no-labels", help="Label the rows of the file whose horizon has passed.")
    ] = False,
    label_threshold_percentile: options.Percentile = 90.0,
    label_gap_threshold_seconds: options.SessionGap = 300.0,
    group: options.Group = "volspike-featurize",
    worker: options.Name = None,
    commit_ms: options.CommitMs = 20.0,
    commit_rows: options.CommitRows = 10_000,
    snapshot_rows: Annotated[int, typer.Option(help="Most messages between two snapshots.")] = 100_000,
    snapshot_seconds: Annotated[
        float, typer.Option(help="Most seconds between two snapshots; increase it for many products.")
    ] = 30.0,
    finish: options.Finish = False,
    cold_start: options.ColdStart = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Turn ticks in Kafka into feature rows, exactly once; start up to one worker per partition."""
    options.check_worker_options(commit_ms, commit_rows, metrics_port)
    options.require_file("--output-file", output_file, ".parquet")
    if snapshot_rows < 1 or not snapshot_seconds > 0:
        raise UsageError(
            f"--snapshot-rows must be at least 1 and --snapshot-seconds above 0, "
            f"got {snapshot_rows} and {snapshot_seconds:g}"
        )
    if profile == "auto":
        raise UsageError("--profile auto is not possible for a stream: name ticker, ticker+trade or trade")
    if add_labels and output_file is None:
        raise UsageError("--add-labels needs a file: name one with --output-file")
    settings = options.cluster_settings(bootstrap_servers, kafka_option, topic_raw=topic_in, topic_features=topic_out)
    from volspike.models.evidence import market_limitations
    from volspike.streams.featurizer import RowKind, featurizer_factory
    from volspike.streams.sink import facts_for, parquet_sink
    from volspike.streams.state import WorkerPlan

    artifact = options.stream_model(model)
    kind = RowKind.for_model(
        artifact.metadata,
        windows=windows,
        scope=feature_set,
        every=options.every_of(every) if every is not None else None,
        profile=options.profile_of(profile) if profile is not None else None,
    )
    features = kind.feature_set
    out.print(
        f"{len(features.names)} features ({features.spec}, digest {features.digest}), a row every {kind.every}, "
        f"profile {kind.profile}; model {artifact.name} from {artifact.directory}"
    )
    if differing := kind.differs_from(artifact.metadata):
        warn(f"predict-stream with this model will refuse these rows: it requires {'; '.join(differing)}")
    facts = artifact.metadata
    warn_of_limitations(artifact.name, market_limitations(facts, (), simulated=facts.simulated, profile=kind.profile))
    plan = WorkerPlan(
        group=group,
        name=options.worker_name(worker),
        topic_in=settings.topic_raw,
        topic_out=settings.topic_features,
        commit_ms=commit_ms,
        commit_rows=commit_rows,
        snapshot_rows=snapshot_rows,
        snapshot_s=snapshot_seconds,
        finish=finish,
        cold_start=cold_start,
    )
    sink = None
    if output_file is not None:
        sink = parquet_sink(output_file, group, settings.topic_raw, facts_for(features, kind.every, kind.profile))
    progress = options.run_worker(
        settings,
        plan,
        featurizer_factory(features, kind.profile, kind.every, sink),
        metrics_host,
        metrics_port,
        "featurizing",
    )
    if output_file is not None:
        if not progress.is_settled:
            warn(f"the worker did not end cleanly: {output_file} lacks the newest rows; run with --finish to add them")
        percentile = label_threshold_percentile if add_labels else None
        _merge_parts(output_file, percentile, label_gap_threshold_seconds)


def _merge_parts(file: Path, percentile: float | None, gap_s: float) -> None:
    from volspike.streams.sink import merge_parts

    merged = merge_parts(file, percentile, gap_s)
    if not merged.parts:
        warn(f"no rows were made, so {file} is not written")
        return
    note_if_simulated(merged.facts is not None and merged.facts.simulated)
    out.print(f"{merged.rows:,} rows of {merged.parts:,} parts → {file}")
    for partition, start, end in merged.elsewhere:
        warn(f"partition {partition}, offsets {start:,} to {end:,}: their rows are in the parts of another worker")
    if merged.labels is not None:
        print_labels(merged.labels)
    elif merged.unlabelled:
        warn(f"no labels: {merged.unlabelled}")
