"""Numbers as a reader meets them, the same in every document; a dash for what is undefined.

Tables of Markdown pages.

What names and verdicts mean, in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan

from volspike.evaluation import Comparison, Interval

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals.

    >>> number(0.12345), number(None)
    ('0.123', '–')
    """
    return DASH if value is None or isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, its sign always told.

    >>> signed(0.05)
    '+0.050'
    """
    return DASH if value is None or isnan(value) else f"{value:+.{digits}f}"


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval; a dash where it has no ends.

    >>> between(0.1, 0.25, 2)
    '0.10 … 0.25'
    """
    if low is None or high is None or isnan(low) or isnan(high):
        return DASH
    return f"{low:.{digits}f} … {high:.{digits}f}"


def span(interval: Interval | None, digits: int = 3) -> str:
    """An interval of the bootstrap; a dash where none was drawn."""
    return DASH if interval is None else between(interval.low, interval.high, digits)


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent.

    >>> share(0.1)
    '10.0 %'
    """
    return DASH if value is None or isnan(value) else f"{100 * value:.{digits}f} %"


def day_and_time(instant: str) -> str:
    """An RFC 3339 instant to the second.

    >>> day_and_time("2025-12-01T16:49:47.178994Z")
    '2025-12-01 16:49:47 UTC'
    """
    return f"{instant[:10]} {instant[11:19]} UTC"


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with an empty line after it."""
    return row(*heads) + row(*["---"] * len(heads)) + "".join(row(*cells) for cells in rows) + "\n"


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
