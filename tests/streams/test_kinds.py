"""A featurizer computes what the model at the end of the stream takes."""

from __future__ import annotations

import msgspec
import pytest

from volspike.errors import SchemaMismatch, UsageError
from volspike.features import Every, FeatureSet, Scope
from volspike.market import Profile
from volspike.models import DEFAULT_MODEL, TEN_MODEL, Artifact, Metadata
from volspike.streams.featurizer import RowKind

SHIPPED = Artifact.load(TEN_MODEL).metadata


@pytest.mark.parametrize("model", [SHIPPED, Artifact.load(DEFAULT_MODEL).metadata])
def test_rows_are_those_of_the_model(model: Metadata) -> None:
    """By default rows have the features, rate and profile of the model; tickers for a model of any profile."""
    kind = RowKind.for_model(model)
    assert kind.feature_set == model.feature_set
    assert (kind.every, kind.profile) == (model.every, model.source_profile or Profile.TICKER)
    assert kind.differs_from(model) == []


def test_what_is_asked_for_wins_and_the_difference_is_named() -> None:
    """Other windows, rates and profiles are made, and it is known that the model will not take them."""
    kind = RowKind.for_model(SHIPPED, windows=[60, 30], scope="core", every=Every.SECOND, profile=Profile.TRADE)
    assert kind == RowKind(FeatureSet((30, 60), Scope.CORE), Every.SECOND, Profile.TRADE)
    assert kind.differs_from(SHIPPED) == [
        f"feature digest {SHIPPED.feature_set.digest}, not {kind.feature_set.digest}",
        "rows every tick, not 1s",
        f"quotes for {', '.join(name for name in SHIPPED.features if name.startswith(('spread', 'order')))}",
    ]


def test_a_leader_is_refused() -> None:
    """The leader's ticks are in another partition, so that rows would depend on chance."""
    with pytest.raises(SchemaMismatch, match=r"needs BTC-USD as leader.*--leader"):
        RowKind.for_model(msgspec.structs.replace(SHIPPED, leader="BTC-USD"))


def test_a_set_that_cannot_be_is_refused() -> None:
    """An unknown scope is a matter of the command line."""
    with pytest.raises(UsageError, match="unknown feature set 'huge'"):
        RowKind.for_model(SHIPPED, scope="huge")
