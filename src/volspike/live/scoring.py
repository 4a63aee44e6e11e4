"""Ticks → feature rows → probabilities: the feature engine and the model, and nothing between them."""

from __future__ import annotations

from math import isfinite, nan
from typing import Final, NamedTuple

import numpy as np

from volspike.errors import SchemaMismatch
from volspike.features import ROW_FLOATS, Every, FeatureEngine, FeatureRow
from volspike.market import Gap, Kind, Profile, Tick
from volspike.models import Artifact

REQUIRED_KINDS: Final = {
    Profile.TICKER: {Kind.TICKER},
    Profile.TICKER_AND_TRADE: {Kind.TICKER, Kind.TRADE},
    Profile.TRADE: {Kind.TRADE},
}


class ScoredRow(NamedTuple):
    """A feature row with the model's probability; NaN if the row is not warm or a value is missing."""

    row: FeatureRow
    probability: float


class LiveScorer:
    """A feature engine for all products, with the model's windows, row rate and profile, and the model.

    The engine of a model of profile ``ticker`` ignores the trades of a source that sends both, as in training.
    """

    def __init__(self, artifact: Artifact) -> None:
        metadata = artifact.metadata
        self.feature_set = metadata.feature_set
        self.profile = Profile(metadata.profile)
        self.engine = FeatureEngine(self.feature_set, self.profile, Every(metadata.every))
        self._use(artifact)

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next row on; the engine and its warm windows stay.

        Raises:
            SchemaMismatch: the model needs other rows than the engine produces.
        """
        artifact.check_inputs(self.feature_set.digest, self.engine.every, self.profile)
        self._use(artifact)

    def _use(self, artifact: Artifact) -> None:
        names = ROW_FLOATS + self.feature_set.names
        self.artifact = artifact
        self._columns = np.array([names.index(name) for name in artifact.features])

    def check_source(self, kinds: set[Kind]) -> None:
        """Refuse a source without the kinds of ticks that the model was trained on.

        Raises:
            SchemaMismatch: the source sends no tickers, or no trades, and the model needs them.
        """
        if not REQUIRED_KINDS[self.profile] <= kinds:
            sent = " and ".join(kind.name.lower() for kind in sorted(kinds))
            raise SchemaMismatch(
                f"model {self.artifact.name} expects profile {self.profile}, the source sends {sent}",
                remedy="choose another --source, or a --model that was trained on this profile",
            )

    def update(self, tick: Tick) -> list[ScoredRow]:
        """The scored rows of a tick."""
        return [ScoredRow(row, self.score(row)) for row in self.engine.update(tick)]

    def score(self, row: FeatureRow) -> float:
        """The probability of a row; NaN if unknown."""
        if not row.is_warm:
            return nan
        return self.artifact.probability_of(row.values[self._columns].tolist())

    def mark_gap(self, gap: Gap) -> None:
        """Mark the rows whose windows contain the gap (``is_whole`` is false)."""
        self.engine.mark_gap(gap)

    def inputs(self, row: FeatureRow) -> dict[str, float | None]:
        """The model's features of a row by name; None if unknown."""
        values = row.values[self._columns].tolist()
        return {
            name: value if isfinite(value) else None for name, value in zip(self.artifact.features, values, strict=True)
        }
