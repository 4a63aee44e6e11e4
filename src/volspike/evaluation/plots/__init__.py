"""Pictures as PNG bytes, as wide as the text of an A4 page, told apart by line and mark as well as by colour.

Drawn with matplotlib's objects, without pyplot: no window, no state between two pictures.
"""

from volspike.evaluation.plots.bars import feature_importance, fold_bars, hour_bars
from volspike.evaluation.plots.curves import pr_curve, reliability_curve, roc_curve
from volspike.evaluation.plots.timeline import around_episode

__all__ = [
    "around_episode",
    "feature_importance",
    "fold_bars",
    "hour_bars",
    "pr_curve",
    "reliability_curve",
    "roc_curve",
]
