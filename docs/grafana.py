"""Grafana's dashboard as code. ``docs/generate.py`` writes docker/grafana/dashboards/crypto-volatility.json from it."""

from __future__ import annotations

import json
from string import ascii_uppercase
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueTextMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
WINDOW: Final = "$__rate_interval"

Panel: TypeAlias = stat.Panel | timeseries.Panel | heatmap.Panel
Queries: TypeAlias = dict[str, str]
"""PromQL expressions by legend."""


def quantiles(histogram: str, *levels: float) -> Queries:
    """Quantiles of a histogram over the current rate interval."""
    return {
        f"p{level * 100:g}": f"histogram_quantile({level}, sum by (le) (rate({histogram}_bucket[{WINDOW}])))"
        for level in levels
    }


def value(
    title: str,
    expr: str,
    *,
    unit: str = "short",
    span: int = 4,
    no_value: str = "",
    bad_below: float | None = None,
    bad_from: float | None = None,
    legend: str = "",
    what: str = "",
) -> stat.Panel:
    """One number; red below ``bad_below`` or from ``bad_from`` on, otherwise blue."""
    panel = (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(4)
        .no_value(no_value)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query(expr, legend))
    )
    if bad_below is not None:
        panel.thresholds(steps((None, "red"), (bad_below, "green")))
    elif bad_from is not None:
        panel.thresholds(steps((None, "green"), (bad_from, "red")))
    else:
        panel.thresholds(steps((None, "blue")))
    return panel


def steps(*levels: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from each level upwards; None is the lowest level."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=level, color=color) for level, color in levels])
    )


def query(expr: str, legend: str, number: int = 0) -> prometheus.Dataquery:
    """The ``number``th query of a panel."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ascii_uppercase[number])


def lines(title: str, queries: Queries, *, unit: str = "short", span: int = 8, what: str = "") -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(7)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for number, (name, expr) in enumerate(queries.items()):
        panel.with_target(query(expr, name, number))
    return panel


def now() -> list[Panel]:
    """Current state at a glance."""
    return [
        value("API", 'min(up{job="api"})', bad_below=1, no_value="none", what="1 if every instance can be scraped."),
        value("Model", "model_info", legend="{{model}} {{version}}", no_value="none").text_mode(BigValueTextMode.NAME),
        value("Source", "live_source_info", legend="{{source}}, {{mode}}").text_mode(BigValueTextMode.NAME),
        value("Feed", "min(feed_connected)", bad_below=1, what="1 if the exchange is connected."),
        value(
            "Data complete",
            "min(feature_whole)",
            bad_below=1,
            what="1 if no product's windows contain a known data loss.",
        ),
        value("Open alerts", "sum(alert_open)", bad_from=1),
    ]


def service() -> list[Panel]:
    """The API and its service levels."""
    requests, failed = (
        'http_requests_total{endpoint="/predict"}',
        'http_requests_total{endpoint="/predict", status=~"5.."}',
    )
    scored = "predictions_total"
    return [
        lines(
            "Requests",
            {"{{endpoint}} {{status}}": f"sum by (endpoint, status) (rate(http_requests_total[{WINDOW}]))"},
            unit="reqps",
        ),
        lines(
            "/predict latency",
            quantiles("prediction_latency_seconds", 0.5, 0.95, 0.99),
            unit="s",
            what="Objective: 95th percentile below 800 ms.",
        ),
        lines(
            "Rows scored",
            {"{{model_version}}: {{prediction}}": f"sum by (model_version, prediction) (rate({scored}[{WINDOW}]))"},
            unit="rowsps",
        ),
        lines(
            "/predict error rate",
            {"5xx": f"(sum(rate({failed}[{WINDOW}])) or vector(0)) / sum(rate({requests}[{WINDOW}]))"},
            unit="percentunit",
            what="Objective: below 1 %.",
        ),
        lines(
            "Unavailability",
            {"1 h": "slo:unavailable:ratio1h", "6 h": "slo:unavailable:ratio6h", "3 d": "slo:unavailable:ratio3d"},
            unit="percentunit",
            what="Share of the window without service; the error budget is 0.5 %.",
        ),
        lines(
            "Error budget burn rate, 3 days",
            {
                "availability": "slo:unavailable:ratio3d / 0.005",
                "errors": "slo:errors:ratio3d / 0.01",
                "latency": "slo:slow:ratio3d / 0.05",
            },
            what="At 1 the budget is used up in exactly 30 days.",
        ),
        lines("Model reloads", {"{{outcome}}": "model_swaps_total"}, span=12),
        value("Model loaded", "min(model_loaded)", bad_below=1, span=12),
    ]


def market() -> list[Panel]:
    """The exchange feed and data loss."""
    return [
        lines(
            "Ticks",
            {
                "{{product}}": f"sum by (product) (rate(feed_ticks_total[{WINDOW}]))",
                "frames": f"sum(rate(feed_frames_total[{WINDOW}]))",
            },
            unit="cps",
        ),
        lines(
            "Feed latency",
            quantiles("feed_latency_seconds", 0.5, 0.95, 0.99),
            unit="s",
            what="From the exchange's clock to ours; only for live sources.",
        ),
        lines(
            "Silence and data age",
            {"since the last frame": "feed_silence_seconds", "{{product}}: since the last row": "feature_age_seconds"},
            unit="s",
        ),
        lines(
            "Gaps by cause", {"{{cause}}": "sum by (cause) (increase(feed_gaps_total[1h]))"}, what="In the last hour."
        ),
        lines(
            "Gap duration by cause",
            {"{{cause}}": "sum by (cause) (increase(feed_gap_seconds_total[1h]))"},
            unit="s",
            what="In the last hour.",
        ),
        lines(
            "Data loss",
            {
                "messages lost": "increase(feed_lost_messages_total[1h])",
                "frames malformed": "increase(feed_malformed_total[1h])",
                "reconnects": "increase(feed_reconnects_total[1h])",
                "ticks not recorded": "increase(tape_unrecorded_ticks_total[1h])",
                "outcomes not stored": "increase(outcomes_lost_total[1h])",
            },
            what="In the last hour.",
        ),
        lines("Feature rows", {"{{product}}": f"sum by (product) (rate(feature_rows_total[{WINDOW}]))"}, unit="rowsps"),
        lines("Data complete", {"{{product}}": "feature_whole"}),
        lines("Warm windows, recording", {"{{product}} warm": "feature_warm", "recording": "tape_recording"}),
    ]


def forecasts() -> list[Panel]:
    """Probabilities, alerts and outcomes."""
    return [
        lines(
            "Probability of a spike",
            {"{{product}}": "spike_probability", "threshold": "spike_threshold"},
            unit="percentunit",
            span=12,
        ),
        heatmap.Panel()
        .title("Distribution of probabilities")
        .datasource(SOURCE)
        .span(12)
        .height(7)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues"))
        .with_target(
            query(f"sum by (le) (increase(score_probability_bucket[{WINDOW}]))", "{{le}}").format(
                PromQueryFormat.HEATMAP
            )
        ),
        lines("Scoring latency", quantiles("score_latency_seconds", 0.5, 0.95, 0.99), unit="s"),
        lines(
            "Alert episodes",
            {"{{product}}": "increase(alert_episodes_total[1h])", "{{product}} open": "alert_open"},
            what="Opened in the last hour, and currently open.",
        ),
        lines(
            "Alert delivery",
            {"{{result}}": "sum by (result) (increase(alert_messages_total[1h]))"},
            what="In the last hour.",
        ),
        lines(
            "Precision and recall, 24 h",
            {"precision": "live_precision", "recall": "live_recall"},
            unit="percentunit",
            what="From outcomes, which are known a minute after each prediction.",
        ),
        lines(
            "Brier score, 24 h",
            {"model": "live_brier", "constant base rate": "live_base_rate * (1 - live_base_rate)"},
            what="A model above the constant forecast is useless.",
        ),
        lines(
            "PR-AUC and base rate, 24 h", {"PR-AUC": "live_pr_auc", "base rate": "live_base_rate"}, unit="percentunit"
        ),
        lines("Evaluated rows, 24 h", {"evaluated": "live_judged_rows", "flagged": "live_called_rows"}, span=12),
        lines(
            "Spike seconds",
            {"{{product}}": "increase(spike_seconds_total[1h])"},
            unit="s",
            span=12,
            what="In the last hour.",
        ),
    ]


def learning() -> list[Panel]:
    """The served model, the last training run and the last drift check."""
    return [
        value("Model age", "time() - model_created_timestamp_seconds", unit="s", span=6),
        value("Training data age", "time() - model_data_end_timestamp_seconds", unit="s", span=6),
        value("Drifted features", "drift_share", unit="percentunit", span=6, bad_from=0.5, no_value="not checked"),
        value("Time since drift check", "time() - drift_checked_timestamp_seconds", unit="s", span=6, no_value="never"),
        lines(
            "Served model, evaluation",
            {"{{figure}}": "model_figure"},
            what="On held-out rows, before promotion.",
        ),
        lines(
            "Last training run, evaluation",
            {"{{figure}}": "training_figure"},
            what="On the final block, which can only overrule a choice.",
        ),
        lines("Features by drift severity", {"{{severity}}": "drift_features"}),
        lines("Data drift severity", {"{{severity}}": "drift_severity"}, span=12),
        value(
            "Time since last training",
            "time() - training_timestamp_seconds",
            unit="s",
            span=6,
            legend="{{model}}",
            no_value="none",
        ),
        value(
            "Last training outcome", "training_outcome == 1", span=6, legend="{{outcome}}", no_value="none"
        ).text_mode(BigValueTextMode.NAME),
    ]


def streams() -> list[Panel]:
    """The Kafka workers."""
    return [
        lines(
            "Lag",
            {"{{job}} {{partition}}": "sum by (job, partition) (stream_lag_messages)"},
            what="Messages waiting in the partitions.",
        ),
        lines(
            "Messages",
            {
                "{{job}} consumed": f"sum by (job) (rate(stream_messages_total[{WINDOW}]))",
                "{{job}} produced": f"sum by (job) (rate(stream_results_total[{WINDOW}]))",
            },
            unit="cps",
        ),
        lines("Commit latency", quantiles("stream_commit_seconds", 0.5, 0.95, 0.99), unit="s"),
        lines(
            "Dead letters, aborts, reprocessed messages",
            {
                "{{job}} dead letters": "increase(stream_dead_letters_total[1h])",
                "{{job}} aborts": "increase(stream_aborts_total[1h])",
                "{{job}} reprocessed": "increase(stream_recovered_messages_total[1h])",
            },
            span=12,
            what="In the last hour.",
        ),
        lines("Partitions", {"{{job}} {{instance}}": "stream_partitions"}, span=12),
        lines(
            "Probabilities",
            quantiles("stream_probability", 0.5, 0.95, 0.99),
            unit="percentunit",
            span=12,
            what="Of the scored rows.",
        ),
        lines(
            "Unscored rows and alerts",
            {
                "{{job}} unscored": f"sum by (job) (rate(stream_unscored_rows_total[{WINDOW}]))",
                "{{job}} episodes per hour": "sum by (job) (increase(stream_alert_episodes_total[1h]))",
            },
            span=12,
        ),
    ]


ROWS: Final = {
    "Now": now,
    "Service": service,
    "Market": market,
    "Forecasts": forecasts,
    "Model, training, drift": learning,
    "Kafka workers": streams,
}


def board() -> str:
    """The dashboard as JSON for Grafana's provisioning."""
    built = (
        dashboard.Dashboard("volspike: crypto volatility")
        .uid("crypto-volatility")
        .tags(["volspike"])
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("utc")
        .readonly()
    )
    for title, panels in ROWS.items():
        built.with_row(dashboard.Row(title))
        for panel in panels():
            built.with_panel(panel)
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
