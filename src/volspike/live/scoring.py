"""Ticks → feature rows → probabilities: what is served live is the engine and the artifact, and nothing between."""

from __future__ import annotations

from math import isfinite, nan
from typing import NamedTuple

import numpy as np

from volspike.errors import SchemaMismatch
from volspike.features import ROW_FLOATS, Every, FeatureEngine, FeatureRow
from volspike.market import Gap, Kind, Profile, Tick
from volspike.models import Artifact


class ScoredRow(NamedTuple):
    """A feature row with the model's probability; NaN while the row is not warm or misses a value."""

    row: FeatureRow
    probability: float


class LiveScorer:
    """One engine for all products, made after the model: its windows, row rate and profile.

    A model of profile ``ticker`` runs on a source that tells trades as well: they are left aside, so that no count
    differs from training.
    """

    def __init__(self, artifact: Artifact) -> None:
        metadata = artifact.metadata
        self.feature_set = metadata.feature_set
        self.profile = Profile(metadata.profile)
        self.engine = FeatureEngine(self.feature_set, self.profile, Every(metadata.every))
        self._take(artifact)

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next row on; the engine and its warm windows stay.

        Raises:
            SchemaMismatch: the model takes other rows than the engine makes.
        """
        artifact.check_inputs(self.feature_set.digest, self.engine.every, self.profile)
        self._take(artifact)

    def _take(self, artifact: Artifact) -> None:
        names = ROW_FLOATS + self.feature_set.names
        self.artifact = artifact
        self._columns = np.array([names.index(name) for name in artifact.features])

    def admits(self, kinds: set[Kind]) -> None:
        """Refuses a source that does not tell what the model was trained on.

        Raises:
            SchemaMismatch: the source tells no tickers, or no trades, where the model needs them.
        """
        needed = {
            Profile.TICKER: {Kind.TICKER},
            Profile.TICKER_AND_TRADE: {Kind.TICKER, Kind.TRADE},
            Profile.TRADE: {Kind.TRADE},
        }[self.profile]
        if not needed <= kinds:
            told = " and ".join(kind.name.lower() for kind in sorted(kinds))
            raise SchemaMismatch(
                f"model {self.artifact.name} expects profile {self.profile}, the source tells {told}",
                remedy="serve a model that was trained on such a source",
            )

    def update(self, tick: Tick) -> list[ScoredRow]:
        """The rows that a tick makes, scored."""
        return [ScoredRow(row, self.score(row)) for row in self.engine.update(tick)]

    def score(self, row: FeatureRow) -> float:
        """The probability of a row; NaN where it is not known."""
        if not row.is_warm:
            return nan
        return self.artifact.probability_of(row.values[self._columns].tolist())

    def mark_gap(self, gap: Gap) -> None:
        """Rows after a loss are not whole."""
        self.engine.mark_gap(gap)

    def inputs(self, row: FeatureRow) -> dict[str, float | None]:
        """What the model was given, by name; None where it is not known."""
        values = row.values[self._columns].tolist()
        return {
            name: value if isfinite(value) else None for name, value in zip(self.artifact.features, values, strict=True)
        }
