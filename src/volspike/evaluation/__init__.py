"""Quality of scores against outcomes and against baselines. Works on scores, not on models."""

from volspike.evaluation.alarm_budget import AlarmPoint, BudgetPoint, alarm_curve, budget_points
from volspike.evaluation.bootstrap import Contrast, Interval
from volspike.evaluation.comparison import Comparison, RowGroup, compare, per_hour, per_product
from volspike.evaluation.forecast_metrics import ForecastComparison, compare_forecasts
from volspike.evaluation.metrics import ScoreMetrics, evaluate_scores
from volspike.evaluation.reliability import Reliability, ReliabilityBin, reliability
from volspike.evaluation.scored import Scored, pooled, rank_unscored_last
from volspike.evaluation.spike_events import EventFigures, SpikeTimeline, event_figures, find_events
from volspike.evaluation.subsets import CalmRows, PartMeans
from volspike.evaluation.thresholds import (
    alarm_minutes_threshold,
    best_f1_threshold,
    chosen_thresholds,
    cost_threshold,
    false_alarm_threshold,
    rate_threshold,
)

__all__ = [
    "AlarmPoint",
    "BudgetPoint",
    "CalmRows",
    "Comparison",
    "Contrast",
    "EventFigures",
    "ForecastComparison",
    "Interval",
    "PartMeans",
    "Reliability",
    "ReliabilityBin",
    "RowGroup",
    "ScoreMetrics",
    "Scored",
    "SpikeTimeline",
    "alarm_curve",
    "alarm_minutes_threshold",
    "best_f1_threshold",
    "budget_points",
    "chosen_thresholds",
    "compare",
    "compare_forecasts",
    "cost_threshold",
    "evaluate_scores",
    "event_figures",
    "false_alarm_threshold",
    "find_events",
    "per_hour",
    "per_product",
    "pooled",
    "rank_unscored_last",
    "rate_threshold",
    "reliability",
]
