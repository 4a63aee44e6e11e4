"""One model of many recordings, and how it fares on markets that it has not seen: the shipped models.

The rows of all recordings are pooled, so that the model learns what markets have in common. A market has a weight
proportional to the root of its rows, as a recording of a week is not seven times as different from the others as one of
a day.

``left_out_probabilities`` are those of the same training without a product, wherever it is traded. They show what to
expect on a market unlike those of training, and the regression of outcomes on them (stacking: Wolpert, "Stacked
generalization", Neural Networks 5, 1992) is where ``OnlineCalibration`` begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import row_second
from volspike.datasets.splits import label_length
from volspike.errors import NotEnoughData, SchemaMismatch
from volspike.evaluation.thresholds import alarm_minutes_threshold
from volspike.labels import TAU, TRAILING_HOUR, SpikeDefinition, spikes
from volspike.models import Detector, Sample
from volspike.models.adaptive import CENTRE_LOG_ODDS, SIZE, VOLATILITIES, OnlineCalibration, calibration_inputs
from volspike.models.alert_level import BUDGET_MINUTES
from volspike.models.metadata import Adaptation
from volspike.models.relative import COLUMNS, RelativeTrees
from volspike.models.volatility import forecast_inputs

STEP_S: Final = 6
"""One row in six seconds is learned from: neighbours share nearly all of their label."""

STACKING_STEP_S: Final = 15
STACKING_PENALTY: Final = 0.003
"""L2, on slopes per standard deviation: enough to divide the weight between volatilities that say the same."""

DEVIATION: Final = 0.5
"""The prior deviation of every coefficient of the online calibration. Between 0.3 and 0.5 neither the log loss nor the
PR-AUC on left-out markets changes by a hundredth; with 0.2 bitFlyer is not yet calibrated after a day, and with 0.8
other markets lose a hundredth of their PR-AUC."""


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """The rows of one product at one venue, all of them with τ.

    Attributes:
        venue: where it was recorded.
        product: the product's id in the rows.
        dataset: the rows, of this product only.
        tau: (n,) their thresholds.
    """

    venue: str
    product: str
    dataset: Dataset
    tau: NDArray[np.float64]

    @property
    def name(self) -> str:
        """Venue and product."""
        return f"{self.venue}:{self.product}"

    @property
    def y(self) -> NDArray[np.int8]:
        """(n,) 1 for a spike."""
        return spikes(self.dataset.future_volatility, self.tau)

    @property
    def second(self) -> NDArray[np.int64]:
        """(n,) the Unix second of each row."""
        return row_second(self.dataset.time, self.dataset.facts.every)

    @property
    def volatilities(self) -> NDArray[np.float64]:
        """(n, 4) the columns that online calibration uses."""
        return self.dataset.columns(VOLATILITIES)


def load_markets(features: Path, venue: str, spike: SpikeDefinition) -> list[Market]:
    """The markets of a feature file.

    Raises:
        UnreadableFile: it is not a labelled feature file.
        SchemaMismatch: it lacks a column that the model or τ needs.
    """
    dataset = load_dataset(features)
    if not RelativeTrees.columns((*dataset.names, TAU)):
        raise SchemaMismatch(
            f"{features} lacks columns to train on",
            missing=sorted({*COLUMNS, *VOLATILITIES} - set(dataset.names)),
            remedy="replay with --feature-set full",
        )
    tau = dataset.thresholds(spike)
    needed = tuple(name for name in dataset.names if name in {*COLUMNS, *VOLATILITIES, *forecast_inputs(dataset.names)})
    dataset = replace(dataset, names=needed, x=dataset.columns(needed))
    markets = []
    for code, product in enumerate(dataset.products):
        rows = np.flatnonzero((dataset.product == code) & np.isfinite(tau))
        if len(rows):
            markets.append(Market(venue, product, dataset.only(rows), tau[rows]))
    return markets


def model_columns(dataset: Dataset) -> tuple[str, ...]:
    """The model's inputs: the volatility that τ is a multiple of, so that clients need send nothing else; τ is last."""
    return (TRAILING_HOUR, *RelativeTrees.columns((*dataset.names, TAU)))


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPart:
    """The rows of a market that are learned from; ``x`` (n, f) are the model's columns, τ last."""

    market: str
    product: str
    names: tuple[str, ...]
    x: NDArray[np.float64]
    volatility: NDArray[np.float64]
    tau: NDArray[np.float64]

    @classmethod
    def of(cls, market: Market, before: int | None = None) -> TrainingPart:
        """Every ``STEP_S``-th second of a market, up to labels that end before ``before`` (ns)."""
        dataset = market.dataset
        names = model_columns(dataset)
        kept = market.second % STEP_S == 0
        if before is not None:
            kept &= dataset.time + label_length(dataset) < before
        rows = np.flatnonzero(kept)
        x = dataset.inputs(names, market.tau, rows)
        return cls(market.name, market.product, names, x, dataset.future_volatility[rows], market.tau[rows])


@dataclass(frozen=True, slots=True, eq=False)
class PooledTraining:
    """The training parts of all markets."""

    parts: Sequence[TrainingPart]
    seed: int = 0

    @property
    def products(self) -> tuple[str, ...]:
        """The products, in alphabetical order."""
        return tuple(sorted({part.product for part in self.parts}))

    def sample(self, left_out: str | None = None) -> Sample:
        """The pooled rows, without those of the product ``left_out``.

        Raises:
            NotEnoughData: no market is left.
        """
        parts = [part for part in self.parts if part.product != left_out and len(part.tau)]
        if not parts:
            raise NotEnoughData("no rows to learn from; give the recordings of at least two products")
        weight = np.concatenate([np.full(len(part.tau), len(part.tau) ** -0.5) for part in parts])
        tau = np.concatenate([part.tau for part in parts])
        volatility = np.concatenate([part.volatility for part in parts])
        return Sample(
            names=parts[0].names,
            x=np.concatenate([part.x for part in parts]),
            y=spikes(volatility, tau),
            volatility=volatility,
            tau=tau,
            weight=weight / weight.mean(),
        )

    def fit(self, left_out: str | None = None) -> Detector:
        """The model of all markets, without those of the product ``left_out``."""
        return RelativeTrees(seed=self.seed).fit(self.sample(left_out))


def probabilities(detector: Detector, market: Market) -> NDArray[np.float64]:
    """(n,) the model's probabilities for all rows of a market."""
    return detector.probability(market.dataset.inputs(model_columns(market.dataset), market.tau))


def left_out_probabilities(
    training: PooledTraining, markets: Sequence[Market], on_step: Callable[[str], None]
) -> list[NDArray[np.float64]]:
    """For each market the probabilities of a model that has not seen its product."""
    models = {}
    for product in training.products:
        on_step(f"fitting without {product}")
        models[product] = training.fit(product)
    return [probabilities(models[market.product], market) for market in markets]


@dataclass(frozen=True, slots=True, eq=False)
class StackingRows:
    """Rows of a market with probabilities of a model that has not seen it; ``inputs`` are those of calibration."""

    product: str
    inputs: NDArray[np.float64]
    y: NDArray[np.int8]

    @classmethod
    def of(cls, market: Market, probability: NDArray[np.float64]) -> StackingRows:
        """Every ``STACKING_STEP_S``-th second of a market whose inputs are known."""
        rows = np.flatnonzero(market.second % STACKING_STEP_S == 0)
        inputs = calibration_inputs(probability[rows], market.volatilities[rows], market.tau[rows])
        known = np.isfinite(inputs).all(axis=1)
        return cls(market.product, inputs[known], market.y[rows][known])


def stacking_coefficients(rows: Sequence[StackingRows], left_out: str | None = None) -> NDArray[np.float64]:
    """(SIZE,) the logistic regression of outcomes on the inputs of calibration, without those of a product."""
    used = [part for part in rows if part.product != left_out and len(part.y)]
    inputs = np.concatenate([part.inputs for part in used])
    y = np.concatenate([part.y for part in used])
    weight = np.concatenate([np.full(len(part.y), len(part.y) ** -0.5) for part in used])
    weight /= weight.sum()
    deviation = np.sqrt(weight @ (inputs - weight @ inputs) ** 2)
    deviation[0], penalty = 1.0, np.full(SIZE, STACKING_PENALTY)
    penalty[0] = 0.0
    scaled = inputs / deviation

    def loss(slopes: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = scaled @ slopes
        value = weight @ (np.logaddexp(0.0, margin) - y * margin) + 0.5 * penalty @ slopes**2
        return float(value), scaled.T @ (weight * (expit(margin) - y)) + penalty * slopes

    start = np.zeros(SIZE)
    start[0], start[1] = CENTRE_LOG_ODDS, deviation[1]
    slopes: NDArray[np.float64] = minimize(loss, start, jac=True, method="L-BFGS-B").x / deviation
    return slopes


def adaptation_of(unlisted: NDArray[np.float64], alert_log_odds: float = 0.0) -> Adaptation:
    """The prior: the model itself for products it was trained on, ``unlisted`` (SIZE,) for all others."""
    return Adaptation(
        listed=(CENTRE_LOG_ODDS, 1.0, *[0.0] * (SIZE - 2)),
        unlisted=tuple(round(float(value), 4) for value in unlisted),
        deviation=DEVIATION,
        alert_log_odds=round(alert_log_odds, 3),
    )


def calibrated(
    market: Market, probability: NDArray[np.float64], adaptation: Adaptation, *, is_listed: bool
) -> NDArray[np.float64]:
    """(n,) the probabilities of a market after online calibration from its first row on."""
    dataset = market.dataset
    calibration = OnlineCalibration(adaptation, is_listed=is_listed, horizon=dataset.facts.horizon_s)
    return calibration.run(market.second, probability, market.volatilities, market.tau, dataset.future_volatility)


def budget_log_odds(markets: Sequence[Market], scores: Sequence[NDArray[np.float64]]) -> float:
    """The log odds of the alert threshold that uses the default budget: the median over markets and their ``scores``.

    A market on which no threshold does is left out.
    """
    levels = []
    for market, score in zip(markets, scores, strict=True):
        known = np.isfinite(score)
        dataset = market.dataset.only(known)
        is_calm = dataset.is_calm(market.tau[known])
        level = alarm_minutes_threshold(score[known], dataset.time, dataset.product, BUDGET_MINUTES, is_calm)
        if 0.0 < level < 1.0:
            levels.append(float(logit(level)))
    return float(np.median(levels))
