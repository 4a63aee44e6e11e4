"""How good a model's calls are, against what a trader already has. Knows of scores and outcomes, not of models."""

from volspike.evaluation.bootstrap import Interval
from volspike.evaluation.comparison import Comparison, compare
from volspike.evaluation.metrics import Metrics, judge
from volspike.evaluation.thresholds import best_f1_threshold, rate_threshold

__all__ = ["Comparison", "Interval", "Metrics", "best_f1_threshold", "compare", "judge", "rate_threshold"]
