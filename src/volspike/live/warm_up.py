"""Warm-up of a product: the seconds until the model's first probability, and the inputs that have no value yet."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Final

from volspike.api.schema import MissingInputs, WarmUp
from volspike.features import ROW_FLOATS, FeatureRow
from volspike.features.catalogue import CATALOGUE, LEADER, names_of
from volspike.features.schema import FAMILIES, FeatureSet
from volspike.labels import SpikeKind
from volspike.live.scoring import ScoredRow
from volspike.market import SECOND_NS
from volspike.models import Artifact

NO_ROW: Final = "no data received yet"
TAU: Final = "tau"
"""The spike threshold of the row, which is the last input of a model that takes it."""

_NO_TAU: Final = {
    SpikeKind.JUMP: "the price did not move in the trailing hour",
    SpikeKind.LEVEL: "one hour of outcomes must be known",
}
_UNDEFINED: Final = {
    "spread_mean": "no quote in the window",
    "order_book_imbalance": "no quote with sizes in the window",
    "volume_velocity": "the feed sends no trade sizes",
    "hour_to_day_ratio": "one hour of the last 24 h must be known",
    "yesterday_to_day_ratio": "the market of 24 h ago must be known",
    "yesterday_to_hour_ratio": "the market of 24 h ago must be known",
}
"""Family or feature → the reason for a missing value once its window is full."""


def warm_up(scored: ScoredRow | None, artifact: Artifact, feature_set: FeatureSet) -> WarmUp:
    """The warm-up after this newest row of a product, with rows of ``feature_set``; None before its first row.

    Seconds count in the time of the market and assume that the session goes on. A model that accepts missing values
    gives probabilities while some inputs are missing.
    """
    if scored is None:
        return WarmUp(seconds=None, missing=[MissingInputs(inputs=artifact.features, reason=NO_ROW, seconds=None)])
    row = scored.row
    values = dict(zip(ROW_FLOATS + feature_set.names, row.values.tolist(), strict=True))
    missing = {name: _cause(name, row, feature_set) for name in artifact.features if not isfinite(values[name])}
    metadata = artifact.metadata
    if metadata.takes_tau and row.is_warm and isnan(scored.tau):
        missing[TAU] = _NO_TAU.get(metadata.spike_definition.kind, NO_ROW), None
    if not isnan(scored.probability):
        seconds: int | None = 0
    elif not row.is_warm:
        seconds = _seconds_to_full(row, feature_set.longest_window)
    else:
        left = [each for name, (_, each) in missing.items() if name == TAU or not metadata.accepts_missing]
        seconds = max((each for each in left if each is not None), default=None) if None not in left else None
    return WarmUp(seconds=seconds, missing=_grouped(missing))


def _seconds_to_full(row: FeatureRow, window: int) -> int:
    """Seconds until a window of this session is full: it takes the window's seconds and one."""
    return max(0, row.session_id + window + 1 - row.timestamp // SECOND_NS)


def _cause(name: str, row: FeatureRow, feature_set: FeatureSet) -> tuple[str, int | None]:
    """The reason for which an input of the row has no value, and the seconds until it has one."""
    family = name.rpartition("_")[0]
    is_window = name not in CATALOGUE and family in {each.name for each in FAMILIES}
    window = int(name.rpartition("_")[2].removesuffix("s")) if is_window else feature_set.longest_window
    left = _seconds_to_full(row, window)
    if left > 0:
        return f"{window + 1} s of a session must be known", left
    if name in names_of(LEADER):
        return f"one minute of the leader {feature_set.leader} must be known", None
    return _UNDEFINED.get(family if is_window else name, "undefined for the present prices, quotes or sizes"), None


def _grouped(missing: Mapping[str, tuple[str, int | None]]) -> list[MissingInputs]:
    """The inputs by cause, in the order of the model's features."""
    groups: dict[tuple[str, int | None], list[str]] = {}
    for name, cause in missing.items():
        groups.setdefault(cause, []).append(name)
    return [
        MissingInputs(inputs=tuple(names), reason=reason, seconds=seconds)
        for (reason, seconds), names in groups.items()
    ]
