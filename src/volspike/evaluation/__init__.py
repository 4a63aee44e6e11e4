"""How good a model's calls are, against what a trader already has. Knows of scores and outcomes, not of models."""

from volspike.evaluation.bootstrap import Interval
from volspike.evaluation.comparison import Comparison, FoldMeans, Part, compare, per_hour, per_product
from volspike.evaluation.metrics import Metrics, judge
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
    "Metrics",
    "Part",
    "Reliability",
    "ReliabilityBin",
    "Scored",
    "best_f1_threshold",
    "chosen_thresholds",
    "compare",
    "cost_threshold",
    "event_figures",
    "false_alarm_threshold",
    "find_events",
    "judge",
    "per_hour",
    "per_product",
    "pooled",
    "rate_threshold",
    "reliability",
]
