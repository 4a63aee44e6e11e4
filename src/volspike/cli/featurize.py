"""``volspike featurize``: ticks in Kafka → feature rows in Kafka, and in a file on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli.options import (
    ColdStart,
    CommitMs,
    CommitRows,
    Finish,
    MetricsHost,
    MetricsPort,
    Name,
    Options,
    Servers,
    check_worker_options,
    cluster_settings,
    run_worker,
    stream_model,
    worker_name,
)
from volspike.cli.options import StreamModel as Model
from volspike.cli.replay import every_of, profile_of, tell_labels
from volspike.cli.screen import note_if_simulated, out, warn
from volspike.errors import UsageError

EXAMPLES = "Example: volspike featurize --output-file data/processed/features.parquet"


def run(
    topic_in: Annotated[
        str | None, typer.Option(help="Where ticks are; $KAFKA_TOPIC_RAW, else ticks.raw when absent.")
    ] = None,
    topic_out: Annotated[
        str | None, typer.Option(help="Where rows go; $KAFKA_TOPIC_FEATURES, else ticks.features when absent.")
    ] = None,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
    output_file: Annotated[
        Path | None, typer.Option(help="Keep the rows as Parquet, too: in parts, put together here at the end.")
    ] = None,
    model: Model = None,
    windows: Annotated[
        list[int] | None, typer.Option(help="Window lengths in seconds; the model's when absent.")
    ] = None,
    feature_set: Annotated[
        str | None,
        typer.Option(
            help="core (7 families), full (79 scale-free features more), deep (and the last 60 s); the model's when "
            "absent."
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="A row per `tick` or per second (`1s`); the model's when absent.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="What the ticks tell: ticker, ticker+trade, trade; what the model's told when absent."),
    ] = None,
    add_labels: Annotated[
        bool, typer.Option("--add-labels/--no-labels", help="Label the file's rows whose minute is over.")
    ] = False,
    label_threshold_percentile: Annotated[float, typer.Option(help="τ's percentile of future volatility.")] = 90.0,
    label_gap_threshold_seconds: Annotated[float, typer.Option(help="A longer silence ends a session.")] = 300.0,
    group: Annotated[str, typer.Option(help="The workers that share the topic's partitions.")] = "volspike-featurize",
    worker: Name = None,
    commit_ms: CommitMs = 20.0,
    commit_rows: CommitRows = 10_000,
    snapshot_rows: Annotated[int, typer.Option(help="Messages between two snapshots at the most.")] = 100_000,
    snapshot_seconds: Annotated[
        float, typer.Option(help="Seconds between two snapshots at the most; more where products are many.")
    ] = 30.0,
    finish: Finish = False,
    cold_start: ColdStart = False,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Turn ticks in Kafka into feature rows, exactly once; start up to one worker per partition."""
    check_worker_options(commit_ms, commit_rows, metrics_port)
    if snapshot_rows < 1 or not snapshot_seconds > 0:
        raise UsageError(
            f"--snapshot-rows is at least 1, --snapshot-seconds above 0; were {snapshot_rows} and {snapshot_seconds:g}"
        )
    if profile == "auto":
        raise UsageError("--profile auto would have to know the future of the stream: name ticker, ticker+trade, trade")
    if add_labels and output_file is None:
        raise UsageError("--add-labels labels a file: name one with --output-file")
    settings = cluster_settings(bootstrap_servers, kafka_option, topic_raw=topic_in, topic_features=topic_out)
    from volspike.streams.featurizer import RowKind, featurizer_factory
    from volspike.streams.sink import facts_for, parquet_sink
    from volspike.streams.state import WorkerPlan

    artifact = stream_model(model)
    kind = RowKind.for_model(
        artifact.metadata,
        windows=windows,
        scope=feature_set,
        every=every_of(every) if every is not None else None,
        profile=profile_of(profile) if profile is not None else None,
    )
    features = kind.feature_set
    out.print(
        f"{len(features.names)} features ({features.scope}, digest {features.digest}), a row every {kind.every}, "
        f"profile {kind.profile}; model {artifact.name} of {artifact.directory}"
    )
    if differing := kind.differs_from(artifact.metadata):
        warn(f"predict-stream with this model will refuse these rows: it takes {'; '.join(differing)}")
    plan = WorkerPlan(
        group=group,
        name=worker_name(worker),
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
    progress = run_worker(
        settings,
        plan,
        featurizer_factory(features, kind.profile, kind.every, sink),
        metrics_host,
        metrics_port,
        "featurizing",
    )
    if output_file is not None:
        if not progress.is_settled:
            warn(f"the end was not in order: {output_file} lacks the newest rows; --finish adds them")
        percentile = label_threshold_percentile if add_labels else None
        _put_together(output_file, percentile, label_gap_threshold_seconds)


def _put_together(file: Path, percentile: float | None, gap_s: float) -> None:
    from volspike.streams.sink import merge_parts

    merged = merge_parts(file, percentile, gap_s)
    if not merged.parts:
        warn(f"no rows were made, so there is no {file}")
        return
    note_if_simulated(merged.facts is not None and merged.facts.simulated)
    out.print(f"{merged.rows:,} rows of {merged.parts:,} parts → {file}")
    for partition, start, end in merged.elsewhere:
        warn(f"partition {partition}, offsets {start:,} to {end:,}: their rows lie with another worker's parts")
    if merged.labels is not None:
        labels = merged.labels
        tell_labels(labels.labelled, labels.spikes, labels.facts.tau, labels.facts.tau_from)
    elif merged.unlabelled:
        warn(f"no labels: {merged.unlabelled}")
