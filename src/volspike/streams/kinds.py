"""Which rows a stream makes: those that the model at its end was made for, where nobody asks for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from volspike.errors import SchemaMismatch
from volspike.features import Every, FeatureSet
from volspike.market import Profile
from volspike.models import Metadata


@dataclass(frozen=True, slots=True)
class RowKind:
    """A feature set, how often it makes a row, and what it is told."""

    feature_set: FeatureSet
    every: Every
    profile: Profile

    @classmethod
    def for_model(
        cls,
        model: Metadata,
        *,
        windows: Sequence[int] | None = None,
        scope: str | None = None,
        every: Every | None = None,
        profile: Profile | None = None,
    ) -> Self:
        """The rows that ``model`` takes, but for what is given.

        Raises:
            SchemaMismatch: the model looks at a leader, whose ticks lie in another partition than those that it leads.
            UsageError: windows or a scope that cannot be.
        """
        if model.leader is not None:
            raise SchemaMismatch(
                f"model {model.model} looks at {model.leader} in all rows, and a partition knows its own products",
                remedy="train one without --leader, or serve this one with `volspike up`",
            )
        features = FeatureSet.of(windows or model.windows, scope or model.scope)
        return cls(features, every or Every(model.every), profile or Profile(model.profile))

    def differs_from(self, model: Metadata) -> list[str]:
        """In what these rows are not those that the model takes; empty where they are."""
        pairs = (
            ("feature digest", model.feature_digest, self.feature_set.digest),
            ("rows every", model.every, self.every),
            ("profile", model.profile, self.profile),
        )
        return [f"{what} {wanted}, not {was}" for what, wanted, was in pairs if wanted != was]
