"""What names and verdicts mean, in words."""

from __future__ import annotations

import re

from volspike.evaluation import Comparison
from volspike.reporting.figures import signed, span

SIMULATED = "SIMULATED market: these numbers show that the machinery works, and say nothing of a real one."

_MEANINGS = (
    (r"best_f1", "the greatest F1 on the validation rows"),
    (r"rate_([\d.]+)", "calls {} % of the validation rows"),
    (r"cost_([\d.]+)", "least cost on the validation rows, a missed spike costing as much as {} false alarms"),
    (
        r"false_alarms_([\d.]+)_per_hour",
        "most spikes caught with at most {} false alarms an hour on the validation rows",
    ),
)


def threshold_meaning(name: str) -> str:
    """What a threshold was chosen for.

    >>> threshold_meaning("rate_10")
    'calls 10 % of the validation rows'
    """
    for form, meaning in _MEANINGS:
        if found := re.fullmatch(form, name):
            return meaning.format(*found.groups())
    return "the detector's own"


def row_spacing(every: str) -> str:
    """What there is a row for.

    >>> row_spacing("1s")
    'second'
    """
    return "second" if every == "1s" else every


def split_in_words(method: str, folds: int, fold_by: str, training: str) -> str:
    """How training and test rows were told apart.

    >>> split_in_words("walk_forward", 5, "day", "expanding")
    'walk_forward, 5 folds by day, expanding training'
    """
    if method != "walk_forward":
        return method
    return f"{method}, {folds} fold{'s' if folds != 1 else ''} by {fold_by}, {training} training"


def verdict(model: str, judged: Comparison) -> str:
    """What the difference to the baseline is worth, in one honest sentence."""
    if model == judged.baseline_name:
        return f"{model} is the best baseline itself: what a model has to beat."
    gain = f"{signed(judged.gain)} (95 %: {span(judged.gain_intervals['pr_auc'])})"
    rested = f"{judged.spike_events} separate spike event{'s' if judged.spike_events != 1 else ''}"
    told = {"better": "better than", "worse": "worse than", "not shown to differ": "not shown to differ from"}
    if (found := judged.verdict()) is not None:
        return f"{model} is {told[found]} {judged.baseline_name}: PR-AUC {gain} over {rested}."
    return f"{model}: too few events to tell ({rested}); record for longer before believing any figure of it."
