"""The best baseline on given rows, and the choice of the model to use: a baseline unless another proves better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Final

import numpy as np

from volspike.evaluation.metrics import average_precision
from volspike.training.fitting import FoldFit, ScoredRows
from volspike.training.folds import is_baseline

if TYPE_CHECKING:
    from volspike.evaluation import Comparison
    from volspike.training.report import ModelResult

LEAST_EVENTS: Final = 20
"""Separate spike events in the pooled test rows that a learned model needs to be chosen."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model of a run to use, and the reason in one sentence."""

    model: str
    reason: str


def best_on_test_rows(models: Mapping[str, Sequence[FoldFit]]) -> str:
    """The name with the greatest PR-AUC, pooled over the test rows of these folds. Of equals the first is best."""
    return _best({name: [(fit, fit.test) for fit in fits] for name, fits in models.items()})


def best_on_validation_rows(models: Mapping[str, Sequence[FoldFit]]) -> str:
    """The same on the validation rows."""
    return _best({name: [(fit, fit.validation) for fit in fits] for name, fits in models.items()})


def _best(parts: Mapping[str, Sequence[tuple[FoldFit, ScoredRows]]]) -> str:
    scores = {
        name: average_precision(
            np.concatenate([fit.fold.y[scored.rows] for fit, scored in folds]),
            np.concatenate([scored.probability for _, scored in folds]),
        )
        for name, folds in parts.items()
    }
    return max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-1.0))


def choose(candidate: ModelResult, best_baseline: str) -> Choice:
    """The ``candidate``, the best of the requested models, or the best baseline if the rule is not met.

    A learned model is chosen if the pooled test rows hold at least ``LEAST_EVENTS`` separate spike events, the interval
    of its gain in PR-AUC over the best baseline excludes zero, and the final block does not contradict it. The final
    block contradicts a gain if its own interval is entirely below zero, or if the loss there is greater than the gain.
    A baseline, if no learned model was requested, needs no evidence.
    """
    name = candidate.model
    if is_baseline(name):
        return Choice(name, "the best of the requested baselines")
    objection = _objection(candidate.pooled, candidate.final)
    if objection is not None:
        return Choice(best_baseline, f"{name}'s {objection}")
    pooled = candidate.pooled
    return Choice(
        name,
        f"its gain over {pooled.baseline_name} is {_describe(pooled)} with {pooled.spike_events} separate spike "
        "events, and the final block does not contradict it",
    )


def _objection(pooled: Comparison, final: Comparison) -> str | None:
    """The condition that is not met; None if all are."""
    if isnan(pooled.gain):
        return "gain is undefined: the test rows are of one class"
    gain = f"gain {_describe(pooled)}"
    if pooled.spike_events < LEAST_EVENTS:
        return f"{gain} rests on {pooled.spike_events} separate spike event(s), {LEAST_EVENTS} are needed"
    if not pooled.gain_intervals["pr_auc"].low > 0.0:
        return f"{gain} does not exclude zero"
    if final.gain_intervals["pr_auc"].high < 0.0 or final.gain < -pooled.gain:
        return f"{gain} is contradicted by the final block: {_describe(final)}"
    return None


def _describe(compared: Comparison) -> str:
    interval = compared.gain_intervals["pr_auc"]
    between = "no interval" if isnan(interval.low) else f"{interval.low:+.3f} … {interval.high:+.3f}"
    return f"{compared.gain:+.3f} ({between})"
