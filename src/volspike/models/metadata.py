"""``metadata.json``: everything that is known of a trained model besides its ONNX graph."""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal, TypeAlias

import msgspec

FORMAT: Final = 1

Figure: TypeAlias = int | float | None
"""A number of an evaluation; None where it is undefined, since JSON has no NaN."""


class DataFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many rows the served model saw, and from when to when (RFC 3339) the data set reached."""

    rows: int
    train_rows: int
    validation_rows: int
    test_rows: int
    start: str
    end: str


class SplitFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training, validation and test were told apart; ``note`` says which part the served model learned from."""

    method: str
    folds: int
    fractions: tuple[float, ...]
    note: str


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts of one model.

    ``features`` are its columns in order and ``left_out`` those that were asked for and held nothing.
    ``feature_digest``, ``windows``, ``every`` and ``profile`` say what kind of rows it understands. ``tau`` is
    the future volatility from which a row counted as a spike. A probability of at least
    ``thresholds[served_threshold]`` is an alert; a threshold above 1 calls none. ``metrics`` holds the figures of
    ``model`` and ``persistence`` on the same rows out of sample.

    Raises:
        ValueError: features that are none or told twice, a ``tau`` that is no number above 0, a threshold that is
            not finite, a served threshold that is not among them.
    """

    format: Literal[1] = FORMAT
    model: str
    created: str
    volspike_version: str
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    feature_digest: str
    windows: tuple[int, ...]
    every: str
    profile: str
    simulated: bool
    products: tuple[str, ...]
    horizon_s: int
    label_percentile: float
    tau: float
    thresholds: dict[str, float]
    served_threshold: str
    accepts_missing: bool
    data: DataFacts
    split: SplitFacts
    metrics: dict[str, dict[str, Figure]]
    importance: dict[str, float]
    versions: dict[str, str]
    onnx_sha256: str

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError("features must be names, each once")
        if self.served_threshold not in self.thresholds:
            raise ValueError(f"served_threshold {self.served_threshold!r} is none of {sorted(self.thresholds)}")
        if not (isfinite(self.tau) and self.tau > 0.0):
            raise ValueError(f"tau must be a number above 0, was {self.tau}")
        endless = {name: value for name, value in self.thresholds.items() if not isfinite(value)}
        if endless:
            # Nothing compares with NaN, so that a model served by it would be silent for good and never say so.
            raise ValueError(f"thresholds must be finite, were {endless}")

    @property
    def threshold(self) -> float:
        """The probability from which the served model calls an alert."""
        return self.thresholds[self.served_threshold]


def encoded(metadata: Metadata) -> bytes:
    """The metadata as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(metadata), indent=2) + b"\n"


def decoded(text: bytes) -> Metadata:
    """The metadata of JSON text.

    Raises:
        msgspec.DecodeError: no JSON, or a field missing, unknown or of another type, named with its path.
        UnicodeDecodeError: a string in it is not UTF-8.
    """
    return msgspec.json.decode(text, type=Metadata)
