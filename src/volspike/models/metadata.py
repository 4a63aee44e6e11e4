"""``metadata.json``: everything that is known of a trained model besides its ONNX graph."""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal, TypeAlias

import msgspec

from volspike.features.schema import FeatureSet, Scope

FORMAT: Final = 1

Figure: TypeAlias = int | float | None
"""A number of an evaluation; None where it is undefined, since JSON has no NaN."""


class DataFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many rows the served model saw, and from when to when (RFC 3339) the data set reached.

    ``learned_rows`` of the ``train_rows`` were learned from: one a second and product at most, weighted by ``weights``.
    ``test_start`` and ``test_end`` are the first and the last instant of the test rows; empty where they are untold.
    """

    rows: int
    train_rows: int
    validation_rows: int
    test_rows: int
    start: str
    end: str
    learned_rows: int = 0
    weights: str = "none"
    test_start: str = ""
    test_end: str = ""


class SplitFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training, validation and test were told apart; ``note`` says which part the served model learned from.

    ``folds`` counts the final one, whose test rows ``final_block`` names; ``fold_by`` says what a test block is.
    """

    method: str
    folds: int
    fractions: tuple[float, ...]
    note: str
    fold_by: str = "rows"
    training: str = "expanding"
    training_span_h: float | None = None
    purge_s: int = 60
    embargo_s: int | None = None
    final_block: str = ""


class FoldFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fold's test rows under that fold's own model; ``baseline_pr_auc`` is the best baseline's on the same rows.

    Only the final fold has intervals.
    """

    fold: int
    block: str
    is_final: bool
    test_rows: int
    tau: float
    base_rate: float | None
    pr_auc: float | None
    pr_auc_low: float | None = None
    pr_auc_high: float | None = None
    baseline_pr_auc: float | None = None
    baseline_pr_auc_low: float | None = None
    baseline_pr_auc_high: float | None = None


class PartFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A product's or an hour's share of the test rows; without figures where it holds too few spike events."""

    label: str
    rows: int
    spike_events: int
    base_rate: float | None = None
    pr_auc: float | None = None
    baseline_pr_auc: float | None = None
    precision: float | None = None
    recall: float | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts of one model.

    ``features`` are its columns in order and ``left_out`` those that were asked for and held nothing.
    ``feature_digest``, ``windows``, ``scope``, ``leader``, ``every`` and ``profile`` say what kind of rows it
    understands. ``tau`` is the future volatility from which a row counted as a spike. A probability of at least
    ``thresholds[served_threshold]`` is an alert; a threshold above 1 calls none. ``metrics`` holds the figures of
    ``model`` and of the rule named ``baseline``, the best that a trader has, on the same rows out of sample; with
    ``_final`` at the end of the name those on the final block, which no choice looked at. ``settings`` are those that
    differ from the detector's defaults, the best of ``trials`` on training rows. ``fold_metrics`` are of every fold,
    oldest first; ``product_metrics`` and ``hour_metrics`` (of the day, UTC) divide the rows of ``metrics``.

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
    scope: str = "core"
    leader: str | None = None
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
    seed: int = 0
    calibration: str = "none"
    baseline: str = "persistence"
    settings: dict[str, int | float | str | bool] = {}
    trials: int = 0
    fold_metrics: tuple[FoldFigures, ...] = ()
    product_metrics: tuple[PartFigures, ...] = ()
    hour_metrics: tuple[PartFigures, ...] = ()

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
    def feature_set(self) -> FeatureSet:
        """The features that the rows it understands have.

        Raises:
            UsageError: windows, scope and leader that no set has.
        """
        return FeatureSet(self.windows, Scope.named(self.scope), self.leader)

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
