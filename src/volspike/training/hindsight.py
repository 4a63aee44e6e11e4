"""How far any forecast could come on these rows: a rule that also knows the two minutes after the one to be foreseen.

Nobody can have it: it looks past the judged minute from both sides. Volatility is the same from one minute to the next
but for chance, so that a rule that knows the neighbours on both sides tells a minute about as well as its neighbours
tell it at all. What it misses is mostly chance; a model that is asked for more is asked to foresee that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from volspike.datasets import Dataset
from volspike.evaluation.metrics import average_precision
from volspike.features.rows import Every
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS
from volspike.models.detector import STILL_VOLATILITY, plain_volatilities
from volspike.training.folds import Fold
from volspike.training.material import gathered
from volspike.training.request import TrainingRequest


def hindsight(dataset: Dataset, request: TrainingRequest) -> dict[str, Any] | None:
    """Its PR-AUC over the selection folds, pooled and as mean of the folds; None unless rows are seconds of a product.

    A logistic regression on the logarithms of the file's volatilities and of those of the two minutes that follow.
    """
    if dataset.facts.every is not Every.SECOND or len(dataset.products) != 1:
        return None
    x = np.column_stack([_past(dataset), *(_later(dataset, minutes * HORIZON_S) for minutes in (1, 2))])
    x = np.log(x + STILL_VOLATILITY)
    judged = [_judged(x, fold) for fold in gathered(request, dataset).folds.selection]
    if not judged:
        return None
    y, score = (np.concatenate(parts) for parts in zip(*judged, strict=True))
    by_fold = [average_precision(*one) for one in judged]
    return {"pr_auc": average_precision(y, score), "mean_per_fold": float(np.mean(by_fold)), "rows": len(y)}


def _past(dataset: Dataset) -> NDArray[np.float64]:
    columns = [dataset.names.index(name) for name in plain_volatilities(dataset.names)]
    past: NDArray[np.float64] = dataset.x[:, columns]
    return past


def _later(dataset: Dataset, seconds: int) -> NDArray[np.float64]:
    """The future volatility of the row that stands ``seconds`` later in the same session; NaN where there is none."""
    wanted = dataset.time + seconds * SECOND_NS
    place = np.minimum(np.searchsorted(dataset.time, wanted), len(wanted) - 1)
    is_there = (dataset.time[place] == wanted) & (dataset.session[place] == dataset.session)
    return np.where(is_there, dataset.future_volatility[place], np.nan)


def _judged(x: NDArray[np.float64], fold: Fold) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Outcomes and scores of the test rows that have all values."""
    train, test = (rows[np.isfinite(x[rows]).all(axis=1)] for rows in (fold.learned.rows, fold.test))
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    model = LogisticRegression(max_iter=500).fit((x[train] - mean) / deviation, fold.y[train])
    score: NDArray[np.float64] = model.decision_function((x[test] - mean) / deviation)
    return fold.y[test], score
