"""Quality of scores against outcomes and against baselines. Works on scores, not on models."""

from volspike.evaluation.bootstrap import Interval
from volspike.evaluation.comparison import Comparison, FoldMeans, RowGroup, compare, per_hour, per_product
from volspike.evaluation.metrics import ScoreMetrics, evaluate_scores
from volspike.evaluation.reliability import Reliability, ReliabilityBin, reliability
from volspike.evaluation.scored import Scored, pooled
from volspike.evaluation.spike_events import EventFigures, event_figures, find_events
from volspike.evaluation.thresholds import (
    best_f1_threshold,
    chosen_thresholds,
    cost_threshold,
    false_alarm_threshold,
    rate_threshold,
)

__all__ = [
    "Comparison",
    "EventFigures",
    "FoldMeans",
    "Interval",
    "Reliability",
    "ReliabilityBin",
    "RowGroup",
    "ScoreMetrics",
    "Scored",
    "best_f1_threshold",
    "chosen_thresholds",
    "compare",
    "cost_threshold",
    "evaluate_scores",
    "event_figures",
    "false_alarm_threshold",
    "find_events",
    "per_hour",
    "per_product",
    "pooled",
    "rate_threshold",
    "reliability",
]
