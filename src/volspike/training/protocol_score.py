"""What a protocol makes of a data set: PR-AUC on its test rows, beside what scores that know nothing reach there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
from volspike.evaluation import Interval, Scored, pooled
from volspike.evaluation.bootstrap import Draws, percentile_interval, resampled_areas
from volspike.evaluation.metrics import average_precision
from volspike.evaluation.scored import block_length, spike_events
from volspike.models import DETECTORS
from volspike.training.fitting import taken_columns
from volspike.training.folds import Fold
from volspike.training.material import Material, gathered
from volspike.training.request import TrainingRequest
from volspike.training.sampling import values

RESAMPLES: Final = 500
TURNS: Final = tuple(np.linspace(0.1, 0.9, 201).tolist())
"""By which shares of a fold its scores are turned round in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolScore:
    """PR-AUC over ``rows`` test rows with its 95 % block-bootstrap interval.

    ``guessing`` is where 95 % of scores lie that know nothing: the model's own, turned round in time within each fold,
    so that they are as smooth as before and belong to other moments. ``persistence`` is the PR-AUC of the last minute's
    volatility on the same rows. What is undefined is NaN.
    """

    rows: int
    folds: int
    spike_events: int
    base_rate: float
    pr_auc: float
    interval: Interval
    guessing: Interval
    persistence: float

    @property
    def finds_something(self) -> bool:
        """Whether the score lies above what guessing reaches."""
        return self.pr_auc > self.guessing.high


def protocol_score(dataset: Dataset, request: TrainingRequest) -> ProtocolScore:
    """The one model of ``request``, trained and judged on every fold but the final one (on that where it is alone).

    The raw probabilities are judged: a calibration would not change their order.

    Raises:
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a column asked for is not there, or the model finds none that it can do with.
    """
    material = gathered(request, dataset)
    (model,) = request.model_names()
    folds = material.folds.selection or material.folds.folds
    judged = pooled([_scored(model, material, fold) for fold in folds])
    if len(judged) == 0:
        raise NotEnoughData(f"{model}: every test row misses a value; take a model that accepts them (lightgbm)")
    return score_of(judged, request.seed)


def score_of(judged: Scored, seed: int = 0) -> ProtocolScore:
    """The figures of rows that are judged together; each fold's must be in time order."""
    draws = Draws.of(judged.time, block_length(judged), RESAMPLES, seed)
    (drawn,) = resampled_areas([(judged.y, judged.probability)], draws)
    return ProtocolScore(
        rows=len(judged),
        folds=len(np.unique(judged.fold)),
        spike_events=spike_events(judged.time[judged.y == 1]),
        base_rate=float(judged.y.mean()),
        pr_auc=average_precision(judged.y, judged.probability),
        interval=percentile_interval(drawn["pr_auc"]),
        guessing=percentile_interval(np.array([_turned(judged, share) for share in TURNS])),
        persistence=average_precision(judged.y, judged.baseline),
    )


def _scored(model: str, material: Material, fold: Fold) -> Scored:
    """The test rows of a fold beside persistence. Areas alone are looked at, so that thresholds are of no account."""
    dataset = material.dataset
    features, _ = taken_columns(model, material, fold)
    sample = fold.learned.sample(dataset, features, fold.y, fold.tau)
    detector = DETECTORS[model](seed=material.request.seed).fit(sample)
    score = detector.probability(values(dataset, fold.test, features))
    known = np.isfinite(score) & np.isfinite(dataset.persistence[fold.test])
    rows = fold.test[known]
    return Scored(
        time=dataset.time[rows],
        product=dataset.product[rows],
        fold=np.full(len(rows), fold.number, np.int32),
        y=fold.y[rows],
        past_volatility=dataset.persistence[rows] / fold.tau,
        probability=score[known],
        threshold=np.ones(len(rows)),
        baseline=dataset.persistence[rows],
        baseline_threshold=np.full(len(rows), fold.tau),
    )


def _turned(judged: Scored, share: float) -> float:
    """PR-AUC when each fold's scores stand ``share`` of its rows too late."""
    score = judged.probability.copy()
    for number in np.unique(judged.fold):
        rows = np.flatnonzero(judged.fold == number)
        score[rows] = np.roll(score[rows], round(share * len(rows)))
    return average_precision(judged.y, score)
