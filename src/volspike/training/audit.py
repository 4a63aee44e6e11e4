"""What an audit is asked for.

The data as it is, and data like it of which features tell nothing.

What a protocol makes of a data set: PR-AUC on its test rows, beside what scores that know nothing reach there.

What an audit found, and what it means.

How much of a score the protocol makes: one model, two protocols, on the data and on data that tells nothing.

How far any forecast could come on these rows: a rule that also knows the two minutes after the one to be foreseen.

Nobody can have it: it looks past the judged minute from both sides. Volatility is the same from one minute to the next
but for chance, so that a rule that knows the neighbours on both sides tells a minute about as well as its neighbours
tell it at all. What it misses is mostly chance; a model that is asked for more is asked to foresee that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil, isnan
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import row_second
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation import Interval, Scored, pooled
from volspike.evaluation.bootstrap import LEAST_BLOCKS, Draws, percentile_interval, resampled_areas
from volspike.evaluation.metrics import average_precision, known
from volspike.evaluation.scored import block_length, spike_events
from volspike.features.rows import Every
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS
from volspike.models import DETECTORS
from volspike.models.detector import STILL_VOLATILITY, plain_volatilities
from volspike.training.fitting import taken_columns
from volspike.training.folds import Fold, Material, gathered, values
from volspike.training.null_market import NullMarket, null_dataset, one_second_returns
from volspike.training.request import TrainingRequest

PROTOCOLS: Final = ("stratified", "walk_forward")

DEFAULT_MODEL: Final = "random_forest"
DEFAULT_ROWS: Final = 40_000
LEAST_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """``rows`` bounds each data set: of more, those of every second, third … second are taken."""

    features: Path
    model: str = DEFAULT_MODEL
    columns: tuple[str, ...] | None = None
    folds: int = 5
    label_percentile: float = 90.0
    rows: int = DEFAULT_ROWS
    seed: int = 0

    def training(self, protocol: str) -> TrainingRequest:
        """What is trained under a protocol."""
        return TrainingRequest(
            features=self.features,
            models=(self.model,),
            columns=self.columns,
            split_method=protocol,
            folds=self.folds,
            label_percentile=self.label_percentile,
            seed=self.seed,
        )

    def check(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            UsageError: no such model, or fewer rows than tell anything.
        """
        request = self.training(PROTOCOLS[0])
        request.check()
        if len(request.model_names()) != 1:
            raise UsageError("an audit trains one model; name it")
        if self.rows < LEAST_ROWS:
            raise UsageError(f"an audit takes at least {LEAST_ROWS} rows, was {self.rows}")


WORLDS: Final = {
    "yours": "the data as it is",
    "turned": "its labels turned round in time: as like their neighbours as before, but of other moments",
    "shuffled": "its labels in an order drawn by lot, unlike their neighbours, so that no leak is found",
    "null market": "independent returns as large as yours, through the same kernel: nothing can be foreseen",
}
"""Name → what it is."""

MOST_SECONDS: Final = 50_000
MOST_TICKS_PER_SECOND: Final = 20.0


def worlds(yours: Dataset, null: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    """The data sets of ``WORLDS``, in its order."""
    yield from zip(WORLDS, (yours, turned(yours, seed), shuffled(yours, seed), null), strict=True)


def every_nth_second(dataset: Dataset, step: int) -> Dataset:
    """The rows of the seconds that ``step`` divides."""
    kept = row_second(dataset.time, dataset.facts.every) % step == 0
    columns = ("time", "product", "session", "x", "future_volatility", "persistence")
    return replace(dataset, **{name: getattr(dataset, name)[kept] for name in columns})


def turned(dataset: Dataset, seed: int) -> Dataset:
    """Each product's future volatilities moved on by the same quarter to three quarters of its rows, the last ones to
    the beginning: features tell nothing of them but by chance, and each is as like its neighbours as before.

    Turned over all sessions and not within each: there a wild session's features would stand beside a wild session's
    future still.
    """
    share = np.random.default_rng([seed, 2]).uniform(0.25, 0.75)
    future = dataset.future_volatility.copy()
    for product in np.unique(dataset.product):
        rows = np.flatnonzero(dataset.product == product)
        future[rows] = np.roll(future[rows], round(share * len(rows)))
    return replace(dataset, future_volatility=future)


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The future volatilities in an order drawn by lot."""
    rng = np.random.default_rng([seed, 3])
    return replace(dataset, future_volatility=rng.permutation(dataset.future_volatility))


def null_like(dataset: Dataset, request: AuditRequest) -> Dataset:
    """A null market as long as the recording, up to ``MOST_SECONDS``, and with as many ticks a second.

    Raises:
        NotEnoughData: the recording has no returns to draw from.
    """
    returns = one_second_returns(request.features, dataset.facts)
    window = dataset.facts.feature_set.longest_window
    counts = dataset.x[:, dataset.names.index(f"trade_intensity_{window}s")]
    market = NullMarket(
        returns=returns,
        seconds=min(len(returns), MOST_SECONDS),
        ticks_per_second=min(float(np.nanmean(counts)) / window, MOST_TICKS_PER_SECOND),
        start=int(row_second(dataset.time[:1], dataset.facts.every)[0]),
        seed=request.seed,
    )
    return null_dataset(dataset.facts, market, request.rows)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Scores by (data, protocol), named as in ``WORLDS`` and ``PROTOCOLS``.

    ``rows`` and ``null_rows`` are those of the data and of the null market; of the data every ``step``-th second's.
    """

    request: AuditRequest
    rows: int
    step: int
    null_rows: int
    simulated: bool
    scores: dict[tuple[str, str], ProtocolScore]

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON has it: what is undefined is None."""
        return {
            "features": str(self.request.features),
            "model": self.request.model,
            "seed": self.request.seed,
            "label_percentile": self.request.label_percentile,
            "simulated": self.simulated,
            "rows": self.rows,
            "every_nth_second": self.step,
            "null_market_rows": self.null_rows,
            "scores": [
                {"data": data, "protocol": protocol, **_told(asdict(score))}
                for (data, protocol), score in self.scores.items()
            ],
            "sentences": list(self.sentences()),
        }

    def sentences(self) -> tuple[str, ...]:
        """What the figures say of each protocol."""
        return tuple(self._sentence(protocol) for protocol in PROTOCOLS)

    def _sentence(self, protocol: str) -> str:
        noise, turned, yours = (self.scores[data, protocol] for data in ("null market", "turned", "yours"))
        on_noise = (
            f"{protocol} scores {noise.pr_auc:.2f} on a market that nobody can foresee "
            f"(guessing: {_span(noise.guessing)})"
        )
        if isnan(noise.pr_auc) or isnan(yours.pr_auc):
            return f"{protocol} cannot be judged: its test rows are of one class only; record for longer"
        if noise.finds_something:
            return f"{on_noise}: {_leaking(yours, turned)}"
        return f"{on_noise}: it makes nothing of noise. {_honest(yours)}"


def _leaking(yours: ProtocolScore, turned: ProtocolScore) -> str:
    """What is left of a score of which a protocol makes most by itself."""
    made = min(turned.pr_auc, yours.pr_auc)
    return (
        f"it leaks. With your own labels turned round in time, so that features tell nothing of them, it scores "
        f"{turned.pr_auc:.2f}: of the {yours.pr_auc:.2f} that it gives your data {made:.2f} is the protocol, and the "
        f"other {yours.pr_auc - made:.2f} cannot be told from it."
    )


def _honest(yours: ProtocolScore) -> str:
    """What a score says that a protocol does not make by itself."""
    guessing = f"guessing reaches there ({_span(yours.guessing)})"
    few = f" {yours.spike_events} event(s) are too few to tell." if yours.spike_events < LEAST_BLOCKS else ""
    if not yours.finds_something:
        return f"The {yours.pr_auc:.2f} that it gives your data is no more than {guessing}: no foresight is shown.{few}"
    return (
        f"The {yours.pr_auc:.2f} (95 % {_span(yours.interval)}) that it gives your data is more than {guessing}: "
        f"foresight, on days like these; the last minute's volatility alone scores {yours.persistence:.2f}.{few}"
    )


def _span(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}"


def _told(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: _told(value) if isinstance(value, dict) else known(value) for name, value in figures.items()}


OnStep = Callable[[str], None]


def audit(request: AuditRequest, on_step: OnStep) -> Audit:
    """Scores the model under both protocols on each of ``WORLDS``; ``on_step`` is told what begins.

    The final block of walk_forward, which no choice may look at, is not looked at here either.

    Raises:
        UsageError: no such model, or too few rows asked for.
        UnreadableFile: the feature file is none, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a column asked for is not in the file, or the model finds none that it can do with.
    """
    request.check()
    on_step("reading")
    dataset = load_dataset(request.features)
    step = ceil(len(dataset) / request.rows)
    yours = every_nth_second(dataset, step)
    on_step("a market that nobody can foresee")
    null = null_like(dataset, request)
    del dataset
    scores = {}
    for data, rows in worlds(yours, null, request.seed):
        for protocol in PROTOCOLS:
            on_step(f"{data}, {protocol}")
            scores[data, protocol] = protocol_score(rows, request.training(protocol))
    return Audit(
        request=request,
        rows=len(yours),
        step=step,
        null_rows=len(null),
        simulated=yours.facts.simulated,
        scores=scores,
    )


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
