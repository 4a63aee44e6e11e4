"""``volspike predict-stream``: feature rows in Kafka to predictions in Kafka, and alerts."""

from __future__ import annotations

from typing import Annotated

import typer

from volspike.cli import options
from volspike.cli.screen import out, warn, warn_of_limitations

EXAMPLES = "Example: volspike predict-stream --model models/artifacts/production"


def run(
    model: options.StreamModel = None,
    topic_in: Annotated[
        str | None, typer.Option(help="Topic of the rows (env KAFKA_TOPIC_FEATURES; default ticks.features).")
    ] = None,
    topic_out: Annotated[
        str | None, typer.Option(help="Topic for the predictions (default: ticks.predictions).")
    ] = None,
    bootstrap_servers: options.Servers = None,
    kafka_option: options.Options = None,
    alert: options.Receivers = None,
    quiet_hours: options.QuietHoursOption = None,
    alert_threshold: options.AlertThresholdOption = None,
    group: options.Group = "volspike-predict",
    worker: options.Name = None,
    commit_ms: options.CommitMs = 20.0,
    commit_rows: options.CommitRows = 10_000,
    finish: options.Finish = False,
    cold_start: options.ColdStart = False,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
    config: options.AlertConfig = None,
) -> None:
    """Score feature rows in Kafka, exactly once; alerts follow once predictions are committed."""
    options.check_worker_options(commit_ms, commit_rows, metrics_port)
    alerts = options.alerting(config, alert, quiet_hours, alert_threshold)
    settings = options.cluster_settings(
        bootstrap_servers, kafka_option, topic_features=topic_in, topic_predictions=topic_out
    )
    from volspike.api.predict import model_version
    from volspike.background import BackgroundCollector
    from volspike.logs import configure_logs
    from volspike.models.evidence import all_limitations, live_markets, model_limitations, texts
    from volspike.monitoring.alerts import AlertRouter, StreamAlerts
    from volspike.monitoring.quiet import SendingRules
    from volspike.streams.metrics import PredictionMetrics, WorkerMetrics
    from volspike.streams.predictor import predictor_factory
    from volspike.streams.state import WorkerPlan

    configure_logs("INFO")
    artifact = options.stream_model(model)
    out.print(f"model {artifact.name} from {artifact.directory}, threshold {artifact.threshold:.4f}")
    warn_of_limitations(artifact.name, model_limitations(artifact.metadata))
    if artifact.holds_budget:
        warn(
            f"{artifact.name} adapts to each product in `volspike up` only: here its probabilities are not calibrated "
            "by outcomes, and its alert threshold is fixed"
        )
    if alerts.thresholds:
        out.print(f"alert thresholds in place of the model's: {alerts.thresholds}")
    plan = WorkerPlan(
        group=group,
        name=options.worker_name(worker),
        topic_in=settings.topic_features,
        topic_out=settings.topic_predictions,
        commit_ms=commit_ms,
        commit_rows=commit_rows,
        finish=finish,
        cold_start=cold_start,
    )
    router, metrics = AlertRouter(alerts.receivers, rules=SendingRules(alerts.quiet_hours)), WorkerMetrics()
    metrics.registry.register(BackgroundCollector(lambda: router.tasks))
    version, counts = model_version(artifact.name), PredictionMetrics(metrics.registry)
    try:
        spike = artifact.metadata.spike_definition.describe()

        def limitations(product: str, simulated: bool) -> list[str]:
            return texts(
                all_limitations(artifact.metadata, live_markets([product], simulated=simulated), simulated=simulated)
            )

        make = predictor_factory(
            artifact,
            version,
            lambda: StreamAlerts(
                artifact.threshold, router, spike=spike, limitations=limitations, thresholds=alerts.thresholds
            ),
            counts,
        )
        options.run_worker(settings, plan, make, metrics_host, metrics_port, "predicting", metrics)
    finally:
        if not router.close():
            warn("not every alert could be sent before the end; the log has them")
