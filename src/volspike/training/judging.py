"""Every model beside the best of the rules that a trader has, on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.evaluation import Scored
from volspike.evaluation.metrics import average_precision
from volspike.training.fitting import Fitted, Part


def scored_beside(dataset: Dataset, model: Fitted, baseline: Fitted) -> Scored:
    """The test rows of their fold that both could score."""
    rows, ours, theirs = np.intersect1d(model.test.rows, baseline.test.rows, assume_unique=True, return_indices=True)
    fold = model.fold
    return Scored(
        time=dataset.time[rows],
        product=dataset.product[rows],
        fold=np.full(len(rows), fold.number, np.int32),
        y=fold.y[rows],
        past_volatility=dataset.persistence[rows] / fold.tau,
        probability=model.test.probability[ours],
        threshold=np.full(len(rows), model.threshold),
        baseline=baseline.test.probability[theirs],
        baseline_threshold=np.full(len(rows), baseline.threshold),
    )


def best_of(fitted: Mapping[str, Sequence[Fitted]]) -> str:
    """The name of greatest pooled PR-AUC over the selection folds, of models fitted on the same folds, oldest first.

    Compared on the rows that all of them could score. The final fold has no say; where there is no other, its
    validation rows decide. Where nothing tells them apart it is the first.
    """
    has_selection = len(next(iter(fitted.values()))) > 1
    parts = {
        name: [(one, one.test) for one in each[:-1]] if has_selection else [(one, one.validation) for one in each]
        for name, each in fitted.items()
    }
    scores = _pooled_pr_auc(parts)
    return max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-1.0))


def _pooled_pr_auc(parts: Mapping[str, Sequence[tuple[Fitted, Part]]]) -> dict[str, float]:
    folds = list(zip(*parts.values(), strict=True))
    common = [reduce(np.intersect1d, [part.rows for _, part in fold]) for fold in folds]
    y = np.concatenate([fold[0][0].fold.y[rows] for fold, rows in zip(folds, common, strict=True)])
    return {
        name: average_precision(
            y, np.concatenate([_of(part, rows) for (_, part), rows in zip(each, common, strict=True)])
        )
        for name, each in parts.items()
    }


def _of(part: Part, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probabilities of ``rows``, all of which are the part's."""
    return part.probability[np.searchsorted(part.rows, rows)]
