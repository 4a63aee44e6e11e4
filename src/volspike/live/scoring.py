"""Ticks → feature rows → thresholds, probabilities and, a horizon later, outcomes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite, nan
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import PERSISTENCE
from volspike.features import ROW_FLOATS, Every, FeatureEngine, FeatureRow
from volspike.labels import (
    LONGEST_HORIZON_S,
    TRAILING_HOUR,
    DelayedLabel,
    DelayedLabels,
    LevelThreshold,
    SpikeDefinition,
    SpikeKind,
    jump_threshold,
)
from volspike.market import SECOND_NS, Gap, Kind, Profile, Tick
from volspike.models import Artifact, Metadata
from volspike.models.adaptive import VOLATILITIES, OnlineCalibration
from volspike.models.volatility import (
    ExpectedVolatility,
    VolatilityTracker,
    forecast_inputs,
    forecast_log_volatility,
)

REQUIRED_KINDS: Final = {
    Profile.TICKER: {Kind.TICKER},
    Profile.TICKER_AND_TRADE: {Kind.TICKER, Kind.TRADE},
    Profile.TRADE: {Kind.TRADE},
}


def served_profile(metadata: Metadata, kinds: Collection[Kind]) -> Profile:
    """The profile of a model's rows on a source of these kinds: that of its training rows, if the source has it."""
    trained = metadata.source_profile
    if trained is not None and REQUIRED_KINDS[trained] <= set(kinds):
        return trained
    return Profile.TICKER if Kind.TICKER in kinds else Profile.TRADE


class Outcome(NamedTuple):
    """The volatility that followed a second (Unix) of a product, and the threshold τ of its last row (NaN: unknown)."""

    product: str
    second: int
    future_volatility: float
    tau: float


class ScoredRow(NamedTuple):
    """A feature row with the model's probability and the row's threshold τ, NaN where they are unknown.

    ``is_calm`` is false if the volatility of the last minute is known to have reached τ.
    ``outcomes`` are those of earlier rows that this row completed; ``volatility`` is None if it is unknown.
    ``is_calibrated`` is whether the outcomes of the product confirm the level of the probability; None if the model
    does not learn from outcomes. ``horizons`` are the probabilities of the model's other horizons in seconds.
    """

    row: FeatureRow
    probability: float
    tau: float
    is_calm: bool
    outcomes: list[Outcome]
    volatility: ExpectedVolatility | None
    is_calibrated: bool | None
    horizons: dict[int, float]


class ModelInputs(NamedTuple):
    """The features of a model, and their places in a row."""

    names: tuple[str, ...]
    columns: NDArray[np.intp]

    def of(self, row: FeatureRow) -> dict[str, float | None]:
        """The features of a row by name; None if unknown."""
        values = row.values[self.columns].tolist()
        return {name: value if isfinite(value) else None for name, value in zip(self.names, values, strict=True)}


class LiveScorer:
    """A feature engine for all products, with the model's windows, row rate and profile, and the model.

    The engine uses the profile of training if the source has its kinds of ticks: a model of profile ``ticker`` then
    ignores the trades of a source that sends both. Otherwise it uses ``ticker`` messages, and trades of a source
    without them.
    """

    def __init__(self, artifact: Artifact, kinds: Collection[Kind] = (Kind.TICKER,)) -> None:
        metadata = artifact.metadata
        self.feature_set = metadata.feature_set
        self.profile = served_profile(metadata, kinds)
        self.engine = FeatureEngine(self.feature_set, self.profile, Every(metadata.every))
        self._is_per_second = self.engine.every is Every.SECOND
        self._labels = DelayedLabels(metadata.horizon_s, is_per_second=self._is_per_second)
        self._thresholds: dict[str, RowThresholds] = {}
        self._volatilities: dict[str, VolatilityTracker] = {}
        self._calibrations: dict[str, OnlineCalibration] = {}
        names = ROW_FLOATS + self.feature_set.names
        weights = forecast_inputs(names)
        self._volatility_columns = np.array([names.index(name) for name in weights], np.intp)
        self._volatility_weights = tuple(weights.values())
        self._last_minute = names.index(PERSISTENCE) if PERSISTENCE in names else None
        self._use(artifact)

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next row on; the engine and its warm windows stay.

        What was learned from the outcomes of the previous model's probabilities is forgotten. Outcomes of another
        horizon begin with the next row.

        Raises:
            SchemaMismatch: the model needs other rows than the engine produces.
        """
        self.check(artifact)
        self._calibrations = {}
        if artifact.metadata.horizon_s != self.artifact.metadata.horizon_s:
            self._labels = DelayedLabels(artifact.metadata.horizon_s, is_per_second=self._is_per_second)
            self._volatilities = {}
        self._use(artifact)

    def check(self, artifact: Artifact) -> None:
        """Refuse a model that needs other rows than the engine produces.

        Raises:
            SchemaMismatch: a feature is missing, or the row rate differs.
        """
        names = self.feature_set.names
        artifact.check_inputs(self.feature_set.digest, self.engine.every, self.profile, names, self.feature_set.leader)

    def _use(self, artifact: Artifact) -> None:
        names = ROW_FLOATS + self.feature_set.names
        self.artifact = artifact
        places = [names.index(name) for name in artifact.features]
        self.inputs = ModelInputs(artifact.features, np.array(places, np.intp))
        spike = artifact.metadata.spike_definition
        self._trailing_hour = names.index(TRAILING_HOUR) if spike.kind is SpikeKind.JUMP else 0
        self._thresholds = {}
        self._heads = [
            (horizon, head, np.array([names.index(name) for name in head.features]))
            for horizon, head in artifact.heads.items()
        ]
        adaptation = artifact.metadata.adaptation
        if adaptation is not None:
            self._calibration_columns = np.array([names.index(name) for name in VOLATILITIES])

    def check_source(self, kinds: set[Kind]) -> None:
        """Refuse a source that cannot supply a feature of the model.

        Raises:
            SchemaMismatch: the source sends no quotes, or no trades, and a feature needs them.
        """
        self.artifact.check_profile(served_profile(self.artifact.metadata, kinds))

    def compile_kernel(self) -> None:
        """Compile the kernel of these features, or load its machine code; otherwise the first tick waits for it."""
        tick = Tick(time=SECOND_NS, received=SECOND_NS, kind=Kind.TICKER, product_id="X", price=1.0)
        FeatureEngine(self.feature_set, self.profile, self.engine.every).update(tick)

    def update(self, tick: Tick) -> list[ScoredRow]:
        """The scored rows of a tick."""
        return [self.score(row) for row in self.engine.update(tick)]

    def score(self, row: FeatureRow) -> ScoredRow:
        """The row with its probability, its threshold and the outcomes that it completes."""
        metadata = self.artifact.metadata
        thresholds = self._thresholds.get(row.product_id)
        if thresholds is None:
            thresholds = RowThresholds(metadata.spike_definition, metadata.tau, metadata.horizon_s)
            self._thresholds[row.product_id] = thresholds
        volatilities = self._volatilities.get(row.product_id)
        if volatilities is None:
            volatilities = self._volatilities[row.product_id] = VolatilityTracker(metadata.horizon_s)
        second = row.timestamp // SECOND_NS - self._is_per_second
        completed = self._labels.add(row.product_id, row.timestamp, float(row.values[0]), row.session_id)
        outcomes = [thresholds.outcome(label) for label in completed]
        calibration = self._calibration(row.product_id)
        for outcome in outcomes:
            volatilities.outcome(outcome.second, outcome.future_volatility)
            if calibration is not None:
                calibration.observe(outcome.second, outcome.future_volatility)
        is_calibrated = None if calibration is None else calibration.is_calibrated
        tau = thresholds.add(second, float(row.values[self._trailing_hour]))
        is_calm = self._last_minute is None or not row.values[self._last_minute] >= tau
        if not row.is_warm:
            return ScoredRow(row, nan, tau, is_calm, outcomes, None, is_calibrated, {})
        probability = self.artifact.probability_of(row.values[self.inputs.columns].tolist(), tau)
        if calibration is not None:
            inputs = row.values[self._calibration_columns].tolist()
            probability = calibration.probability(second, probability, inputs, tau)
        past = row.values[self._volatility_columns].tolist()
        volatility = volatilities.update(second, forecast_log_volatility(past, self._volatility_weights))
        horizons = {
            horizon: head.probability_of(row.values[columns].tolist(), self._jump_threshold(head, row))
            for horizon, head, columns in self._heads
        }
        return ScoredRow(row, probability, tau, is_calm, outcomes, volatility, is_calibrated, horizons)

    def _jump_threshold(self, head: Artifact, row: FeatureRow) -> float | None:
        """τ of a row for another horizon; None where the head derives it itself."""
        spike = head.metadata.spike_definition
        if spike.kind is not SpikeKind.JUMP:
            return None
        return jump_threshold(float(row.values[self._trailing_hour]), spike.value)

    def _calibration(self, product: str) -> OnlineCalibration | None:
        """The calibration of a product; None if the model does not learn from outcomes."""
        metadata = self.artifact.metadata
        if metadata.adaptation is None:
            return None
        known = self._calibrations.get(product)
        if known is None:
            is_listed = product in metadata.products
            known = OnlineCalibration(metadata.adaptation, is_listed=is_listed, horizon=metadata.horizon_s)
            self._calibrations[product] = known
        return known

    def dump_calibrations(self) -> dict[str, bytes]:
        """The state of each product's calibration, to be restored by ``restore_calibrations``."""
        return {product: calibration.dump() for product, calibration in self._calibrations.items()}

    def restore_calibrations(self, saved: Mapping[str, bytes]) -> None:
        """Continue with what was learned before a restart; a state of another prior is ignored.

        Raises:
            DataError: the bytes are no state of a calibration.
        """
        for product, state in saved.items():
            calibration = self._calibration(product)
            if calibration is not None:
                calibration.load(state)

    def row_second(self, outcome: Outcome) -> int:
        """The Unix second of the timestamps of the rows that an outcome belongs to; a row of a second is at its end."""
        return outcome.second + self._is_per_second

    def mark_gap(self, gap: Gap) -> None:
        """Mark the rows whose windows contain the gap (``is_whole`` is false); no outcome extends into it."""
        self.engine.mark_gap(gap)
        self._labels.add_gap(gap.start, gap.end, gap.products)


MAX_PENDING_SECONDS: Final = 2 * LONGEST_HORIZON_S
"""Seconds whose threshold is kept until their outcome is known; some outcomes never are."""


class RowThresholds:
    """τ of one product's live rows, and their outcomes.

    Args:
        spike: what counts as a spike.
        tau: τ of a percentile, from the training rows.
        horizon: in seconds.
    """

    def __init__(self, spike: SpikeDefinition, tau: float, horizon: int) -> None:
        self._spike, self._fixed = spike, tau
        self._level = LevelThreshold(spike.value, horizon) if spike.kind is SpikeKind.LEVEL else None
        self._pending: dict[int, float] = {}

    def add(self, second: int, trailing_volatility: float) -> float:
        """τ of a row in ``second``, given the volatility of its trailing hour."""
        match self._spike.kind:
            case SpikeKind.JUMP:
                tau = jump_threshold(trailing_volatility, self._spike.value)
            case SpikeKind.LEVEL if self._level is not None:
                tau = self._level.tau(second)
            case _:
                tau = self._fixed
        self._pending[second] = tau
        if len(self._pending) > MAX_PENDING_SECONDS:
            del self._pending[next(iter(self._pending))]
        return tau

    def outcome(self, label: DelayedLabel) -> Outcome:
        """The outcome with the τ that its second had."""
        if self._level is not None:
            self._level.add(label.second, label.future_volatility)
        return Outcome(label.product, label.second, label.future_volatility, self._pending.pop(label.second, nan))
