"""Leakage audit: how much of a model's score comes from the evaluation protocol instead of the features.

One model is evaluated under a stratified and a walk-forward split, on the data as it is and on three variants in which
features cannot predict the labels. A protocol that scores above chance on those variants leaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil, isnan, nan
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import row_second
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation import Interval, Scored, pooled
from volspike.evaluation.bootstrap import LEAST_BLOCKS, Draws, percentile_interval, resampled_areas
from volspike.evaluation.metrics import average_precision, known
from volspike.evaluation.scored import block_length, spike_events
from volspike.labels import SpikeDefinition
from volspike.models import DETECTORS
from volspike.progress import OnStep, counted
from volspike.training.fitting import select_columns
from volspike.training.folds import Fold, TrainingData, prepare_training_data
from volspike.training.null_market import NullMarket, null_dataset, one_second_returns
from volspike.training.request import TrainingRequest

PROTOCOLS: Final = ("stratified", "walk_forward")

DATA_VARIANTS: Final = {
    "yours": "the data as it is",
    "turned": "labels rotated in time: as autocorrelated as before, but unrelated to the features",
    "shuffled": "labels in random order, without autocorrelation, so that a leak has nothing to use",
    "null market": "independent returns of the same sizes, through the same kernel: unpredictable",
}
"""Name → description."""

DEFAULT_MODEL: Final = "random_forest"
DEFAULT_ROWS: Final = 40_000
LEAST_ROWS: Final = 2_000
MOST_SECONDS: Final = 50_000
MOST_TICKS_PER_SECOND: Final = 20.0
RESAMPLES: Final = 500
ROTATIONS: Final = tuple(np.linspace(0.1, 0.9, 201).tolist())
"""Shares of a fold by which its scores are rotated in time to find what chance reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """Options of an audit; ``rows`` bounds each data set: of more, every k-th second is used."""

    features: Path
    model: str = DEFAULT_MODEL
    columns: tuple[str, ...] | None = None
    folds: int = 5
    label_percentile: float = 90.0
    spike: str | None = None
    rows: int = DEFAULT_ROWS
    seed: int = 0

    def training_request(self, protocol: str) -> TrainingRequest:
        """The training run under a protocol."""
        return TrainingRequest(
            features=self.features,
            models=(self.model,),
            columns=self.columns,
            split_method=protocol,
            folds=self.folds,
            label_percentile=self.label_percentile,
            spike=self.spike,
            seed=self.seed,
        )

    def check(self) -> None:
        """Reject invalid options.

        Raises:
            UsageError: an unknown model or several, or too few rows.
        """
        request = self.training_request(PROTOCOLS[0])
        request.check()
        if len(request.model_names()) != 1:
            raise UsageError("an audit trains one model; name it with --model")
        if self.rows < LEAST_ROWS:
            raise UsageError(f"--rows must be at least {LEAST_ROWS}, was {self.rows}")


UNKNOWN: Final = Interval(nan, nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolScore:
    """PR-AUC over ``rows`` test rows with its 95 % block-bootstrap interval.

    ``guessing`` covers 95 % of the scores reached by chance: the model's own scores rotated in time within each fold,
    as autocorrelated as before but unrelated to the labels. ``persistence`` is the PR-AUC of the last minute's
    volatility on the same rows. ``tau_alone`` is the interval of the PR-AUC of 1/τ, NaN if τ is the same for all rows
    of a fold: a lower τ is reached more often, even if returns are independent. Undefined values are NaN.
    """

    rows: int
    folds: int
    spike_events: int
    base_rate: float
    pr_auc: float
    interval: Interval
    guessing: Interval
    persistence: float
    tau_alone: Interval = UNKNOWN

    @property
    def beats_chance(self) -> bool:
        """Whether the score is above what chance, and τ alone, reach."""
        return self.pr_auc > self.guessing.high and not self.pr_auc <= self.tau_alone.high


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Scores by (data variant, protocol), named as in ``DATA_VARIANTS`` and ``PROTOCOLS``.

    ``rows`` and ``null_rows`` count the rows of the data and of the null market; of the data every ``step``-th second
    is used.
    """

    request: AuditRequest
    rows: int
    step: int
    null_rows: int
    simulated: bool
    scores: dict[tuple[str, str], ProtocolScore]

    def figures(self) -> dict[str, Any]:
        """The report as JSON values; undefined ones are None."""
        return {
            "features": str(self.request.features),
            "model": self.request.model,
            "seed": self.request.seed,
            "label_percentile": self.request.label_percentile,
            "spike": self.request.spike,
            "simulated": self.simulated,
            "rows": self.rows,
            "every_nth_second": self.step,
            "null_market_rows": self.null_rows,
            "scores": [
                {"data": data, "protocol": protocol, **_json_values(asdict(score))}
                for (data, protocol), score in self.scores.items()
            ],
            "sentences": list(self.sentences()),
        }

    def sentences(self) -> tuple[str, ...]:
        """One conclusion per protocol."""
        return tuple(self._conclusion(protocol) for protocol in PROTOCOLS)

    def _conclusion(self, protocol: str) -> str:
        noise, turned, yours = (self.scores[data, protocol] for data in ("null market", "turned", "yours"))
        if isnan(noise.pr_auc) or isnan(yours.pr_auc):
            return f"{protocol} cannot be evaluated: its test rows are of one class only; record for longer"
        by_tau = "" if isnan(noise.tau_alone.low) else f"; τ alone: {_span(noise.tau_alone)}"
        chance = f"chance: {_span(noise.guessing)}{by_tau}"
        on_noise = f"{protocol} scores {noise.pr_auc:.2f} on an unpredictable market ({chance})"
        if noise.beats_chance:
            return f"{on_noise}: {_describe_leak(yours, turned)}"
        return f"{on_noise}: it does not leak. {_describe_skill(yours)}"


def _describe_leak(yours: ProtocolScore, turned: ProtocolScore) -> str:
    if isnan(turned.pr_auc):
        return "it leaks. How much of the score on your data comes from the protocol cannot be measured."
    leaked = min(turned.pr_auc, yours.pr_auc)
    return (
        f"it leaks. With the labels rotated in time, so that features cannot predict them, it scores "
        f"{turned.pr_auc:.2f}: of the {yours.pr_auc:.2f} on your data, {leaked:.2f} come from the protocol, and the "
        f"other {yours.pr_auc - leaked:.2f} cannot be separated from it."
    )


def _describe_skill(yours: ProtocolScore) -> str:
    """A sentence on the user's data; skill is stated only with an interval, above chance and above one column."""
    chance = f"what chance reaches ({_span(yours.guessing)})"
    column = "that of the last minute's volatility alone"
    by_column = "" if isnan(yours.persistence) else f" and {column} ({yours.persistence:.2f})"
    if yours.spike_events < LEAST_BLOCKS or isnan(yours.interval.low):
        return (
            f"On your data it scores {yours.pr_auc:.2f}; compare {chance}{by_column}. There is no conclusion about "
            f"skill: {yours.spike_events} separate spike event(s) are too few for an interval; record for longer."
        )
    score = f"On your data it scores {yours.pr_auc:.2f} (95 %: {_span(yours.interval)})"
    if not yours.beats_chance:
        return f"{score}, which is not above {chance}: no skill is shown."
    if yours.persistence >= yours.pr_auc:
        return (
            f"{score}, which is above {chance}, but not above {column} ({yours.persistence:.2f}): the model shows "
            "no skill of its own."
        )
    return f"{score}, which is above {chance}{by_column}: it has skill on days like these."


def _span(interval: Interval) -> str:
    return "unknown" if isnan(interval.low) else f"{interval.low:.2f} to {interval.high:.2f}"


def _json_values(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: _json_values(value) if isinstance(value, dict) else known(value) for name, value in figures.items()}


def audit(request: AuditRequest, on_step: OnStep) -> AuditReport:
    """Score the model under both protocols on each data variant; ``on_step`` receives the name of each step.

    The final block of walk_forward is not used.

    Raises:
        UsageError: an unknown model, or too few rows requested.
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: the file lacks a requested column, or every column that the model can use.
    """
    request.check()
    on_step = counted(on_step, 2 + len(DATA_VARIANTS) * len(PROTOCOLS))
    on_step("reading")
    dataset = load_dataset(request.features)
    spike = request.training_request(PROTOCOLS[0]).spike_definition(dataset.facts)
    if spike.is_adaptive:
        dataset = replace(dataset, tau=dataset.thresholds(spike))
        dataset = dataset.only(np.isfinite(dataset.tau))
    step = ceil(len(dataset) / request.rows)
    yours = every_nth_second(dataset, step)
    on_step("generating an unpredictable market")
    null = build_null_dataset(dataset, request, spike)
    del dataset
    scores = {}
    for variant, rows in data_variants(yours, null, request.seed):
        for protocol in PROTOCOLS:
            on_step(f"{variant}, {protocol}")
            scores[variant, protocol] = score_protocol(rows, request.training_request(protocol))
    return AuditReport(
        request=request,
        rows=len(yours),
        step=step,
        null_rows=len(null),
        simulated=yours.facts.simulated,
        scores=scores,
    )


def data_variants(yours: Dataset, null: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    """The data sets of ``DATA_VARIANTS``, in its order."""
    variants = (yours, rotate_labels(yours, seed), shuffle_labels(yours, seed), null)
    yield from zip(DATA_VARIANTS, variants, strict=True)


def every_nth_second(dataset: Dataset, step: int) -> Dataset:
    """The rows of the seconds that are multiples of ``step``."""
    kept = row_second(dataset.time, dataset.facts.every) % step == 0
    return dataset.only(kept)


def rotate_labels(dataset: Dataset, seed: int) -> Dataset:
    """Each product's future volatilities rotated by the same quarter to three quarters of its rows.

    Features are then unrelated to labels except by chance, while labels stay as autocorrelated as before. The rotation
    crosses sessions: within one, a volatile session's features would still meet a volatile session's labels. Where rows
    have a τ of their own, volatilities are rotated as multiples of it, so that the labels are those of other rows.
    """
    share = np.random.default_rng([seed, 2]).uniform(0.25, 0.75)
    scale = _scale(dataset)
    multiple = dataset.future_volatility / scale
    for product in np.unique(dataset.product):
        rows = np.flatnonzero(dataset.product == product)
        multiple[rows] = np.roll(multiple[rows], round(share * len(rows)))
    return replace(dataset, future_volatility=multiple * scale)


def shuffle_labels(dataset: Dataset, seed: int) -> Dataset:
    """The future volatilities in random order, as multiples of τ where rows have one of their own."""
    rng = np.random.default_rng([seed, 3])
    scale = _scale(dataset)
    return replace(dataset, future_volatility=rng.permutation(dataset.future_volatility / scale) * scale)


def _scale(dataset: Dataset) -> NDArray[np.float64]:
    """(n,) τ of each row; 1 without."""
    return np.where(np.isfinite(dataset.tau), dataset.tau, 1.0)


def build_null_dataset(dataset: Dataset, request: AuditRequest, spike: SpikeDefinition) -> Dataset:
    """A null market as long as the recording, up to ``MOST_SECONDS``, with as many ticks per second.

    Its rows have τ according to ``spike``, if that differs from row to row.

    Raises:
        NotEnoughData: the recording has no one-second return.
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
    return null_dataset(dataset.facts, market, request.rows, spike)


def score_protocol(dataset: Dataset, request: TrainingRequest) -> ProtocolScore:
    """Train and score the request's only model on every selection fold (the final fold if it is the only one).

    Raw probabilities are scored: calibration would not change their order.

    Raises:
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a requested column is missing, or every column that the model can use.
    """
    data = prepare_training_data(request, dataset)
    (model,) = request.model_names()
    folds = data.fold_set.selection or data.fold_set.folds
    parts = [_score_fold(model, data, fold) for fold in folds]
    scored, tau = pooled([part for part, _ in parts]), np.concatenate([tau for _, tau in parts])
    if len(scored) == 0:
        raise NotEnoughData(f"{model}: every test row lacks a value; audit a model that accepts them (lightgbm)")
    return protocol_score(scored, request.seed, tau if data.spike.is_adaptive else None)


def protocol_score(scored: Scored, seed: int = 0, tau: NDArray[np.float64] | None = None) -> ProtocolScore:
    """The score of pooled rows; those of each fold must be in time order.

    ``tau`` (n,) is that of each row, if it differs from row to row.
    """
    draws = Draws.of(scored.time, block_length(scored), RESAMPLES, seed)
    (resampled,) = resampled_areas([(scored.y, scored.probability)], draws)
    tau_alone = UNKNOWN
    if tau is not None:
        (by_tau,) = resampled_areas([(scored.y, 1.0 / tau)], draws)
        tau_alone = percentile_interval(by_tau["pr_auc"])
    return ProtocolScore(
        rows=len(scored),
        folds=len(np.unique(scored.fold)),
        spike_events=spike_events(scored.time[scored.y == 1]),
        base_rate=float(scored.y.mean()),
        pr_auc=average_precision(scored.y, scored.probability),
        interval=percentile_interval(resampled["pr_auc"]),
        guessing=percentile_interval(np.array([_rotated_pr_auc(scored, share) for share in ROTATIONS])),
        persistence=average_precision(scored.y, scored.baseline),
        tau_alone=tau_alone,
    )


def _score_fold(model: str, data: TrainingData, fold: Fold) -> tuple[Scored, NDArray[np.float64]]:
    """The test rows of a fold with persistence as baseline, and their τ.

    Only areas are used, so that thresholds do not matter.
    """
    dataset = data.dataset
    features, _ = select_columns(model, data, fold)
    sample = fold.fit_rows.sample(dataset, features, fold.y, fold.tau)
    detector = DETECTORS[model](seed=data.request.seed).fit(sample)
    score = detector.probability(dataset.inputs(features, fold.tau, fold.test))
    is_scored = np.isfinite(score) & np.isfinite(dataset.persistence[fold.test])
    rows = fold.test[is_scored]
    scored = Scored.of(
        dataset,
        rows,
        fold.tau,
        probability=score[is_scored],
        threshold=1.0,
        baseline=dataset.persistence[rows] / fold.tau[rows],
        baseline_threshold=1.0,
        fold=fold.number,
    )
    return scored, fold.tau[rows]


def _rotated_pr_auc(scored: Scored, share: float) -> float:
    """PR-AUC with each fold's scores rotated by ``share`` of its rows."""
    score = scored.probability.copy()
    for number in np.unique(scored.fold):
        rows = np.flatnonzero(scored.fold == number)
        score[rows] = np.roll(score[rows], round(share * len(rows)))
    return average_precision(scored.y, score)
