"""``metadata.json``: all that is known of a trained model except its ONNX graph."""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal, TypeAlias

import msgspec

from volspike.features.catalogue import Supply
from volspike.features.extra import ExtraFacts, resolve_extras
from volspike.features.schema import FeatureSet, Scope, describe_feature
from volspike.labels import SpikeDefinition
from volspike.market import Profile

FORMAT: Final = 1

ANY_PROFILE: Final = "any"
"""The profile of a model that was trained on rows of several profiles."""

SUPPLIED: Final = {
    Profile.TICKER: frozenset({Supply.PRICES, Supply.QUOTES}),
    Profile.TICKER_AND_TRADE: frozenset(Supply),
    Profile.TRADE: frozenset({Supply.PRICES, Supply.TRADES}),
}
"""What the sources of a profile send. Some tickers have trade sizes as well, but no other profile can rely on that."""

SUPPLIERS: Final = {
    Supply.QUOTES: "a source that sends quotes (profile ticker or ticker+trade)",
    Supply.TRADES: "a source that sends trades (profile trade or ticker+trade)",
}
"""What to choose for features that a profile has no value of."""

Figure: TypeAlias = int | float | None
"""A number of an evaluation; None if it is undefined, as JSON has no NaN."""


class DataFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of rows, and the time range of the data set (RFC 3339).

    The model learned from ``learned_rows`` of the ``train_rows``, at most one per second and product, weighted by
    ``weights``. ``test_start`` and ``test_end`` are the times of the first and the last test row; empty if unknown.
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


class MarketFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A product at a venue, and the time range of its rows (RFC 3339); empty if unknown."""

    venue: str
    product: str
    start: str = ""
    end: str = ""

    @property
    def name(self) -> str:
        """Venue and product."""
        return f"{self.venue}:{self.product}"


class SplitFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The split into training, validation and test rows; ``note`` says which part the served model learned from.

    ``folds`` includes the final one, whose test rows are ``final_block``; ``fold_by`` is the unit of a test block.
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
    """Figures of one fold's model on its test rows; ``baseline_pr_auc`` is the best baseline's on the same rows.

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
    """Figures of the test rows of a product or an hour of the day; None if they contain too few spike events."""

    label: str
    rows: int
    spike_events: int
    base_rate: float | None = None
    pr_auc: float | None = None
    baseline_pr_auc: float | None = None
    precision: float | None = None
    recall: float | None = None


class Adaptation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prior of ``models.adaptive.OnlineCalibration``, and where ``models.alert_level.AlertLevel`` begins.

    ``listed`` are the prior means of the coefficients for products that the model was trained on, ``unlisted`` those
    for all other products, ``deviation`` is the prior standard deviation of each, and ``alert_log_odds`` the first
    alert threshold.
    """

    listed: tuple[float, ...]
    unlisted: tuple[float, ...]
    deviation: float
    alert_log_odds: float


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts of one model.

    ``features`` are its columns in order and ``left_out`` those that were requested but had no values.
    ``windows``, ``scope``, ``leader``, ``extras`` and ``every`` define the rows it accepts; ``profile`` is that of the
    training rows (``any``: of several), and others are accepted if they supply its features. ``feature_digest`` is
    that of the training rows' feature set, ``feature_definition`` the version of the formulas behind the names.
    ``markets`` are the products with their venues and time ranges; artifacts of older versions do not state them.
    ``spike`` is the text of the ``SpikeDefinition``. ``tau`` is the future volatility from which a row is a spike; the
    median over the training rows if it differs from row to row, and then the model ``takes_tau`` of each row as its
    last input, after the ``features``. A probability of at least ``thresholds[served_threshold]`` is an alert; a
    threshold above 1 gives none. With an ``adaptation`` both follow each product's outcomes and alarms instead.
    ``requested_threshold`` is the name that was requested, "" if unknown; ``limitations`` are those of
    ``volspike.models.evidence`` when it was written.
    ``metrics`` contains the figures of
    ``model`` and of the best baseline, named ``baseline``, on the same held-out rows; names that end in ``_final``
    refer to the final block, where ``final_baseline`` is best ("": the same), and which can only overrule a choice.
    ``settings`` are those that differ from the detector's defaults, the best of ``trials`` on training rows.
    ``fold_metrics`` are of all folds, oldest first;
    ``product_metrics`` and ``hour_metrics`` (of the day, UTC) divide the rows of ``metrics``.

    Raises:
        ValueError: no features or duplicate ones, a ``tau`` that is no number above 0, a threshold that is not finite,
            a served threshold that does not exist.
    """

    format: Literal[1] = FORMAT
    model: str
    created: str
    volspike_version: str
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    feature_digest: str
    feature_definition: int = 1
    windows: tuple[int, ...]
    every: str
    profile: str
    scope: str = "core"
    leader: str | None = None
    extras: tuple[ExtraFacts, ...] = ()
    simulated: bool
    products: tuple[str, ...]
    horizon_s: int
    label_percentile: float
    tau: float
    markets: tuple[MarketFacts, ...] = ()
    spike: str = ""
    takes_tau: bool = False
    adaptation: Adaptation | None = None
    thresholds: dict[str, float]
    served_threshold: str
    requested_threshold: str = ""
    limitations: tuple[str, ...] = ()
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
    final_baseline: str = ""
    settings: dict[str, int | float | str | bool] = {}
    trials: int = 0
    fold_metrics: tuple[FoldFigures, ...] = ()
    product_metrics: tuple[PartFigures, ...] = ()
    hour_metrics: tuple[PartFigures, ...] = ()

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError("features must be names without duplicates")
        if self.served_threshold not in self.thresholds:
            raise ValueError(f"served_threshold {self.served_threshold!r} is none of {sorted(self.thresholds)}")
        if not (isfinite(self.tau) and self.tau > 0.0):
            raise ValueError(f"tau must be a number above 0, was {self.tau}")
        endless = {name: value for name, value in self.thresholds.items() if not isfinite(value)}
        if endless:
            # No probability is at least NaN: the model would never alert, and nothing would show why.
            raise ValueError(f"thresholds must be finite, were {endless}")

    @property
    def row_options(self) -> str:
        """The options of ``volspike replay`` that make rows with the features of the model."""
        spec = "+".join((Scope.named(self.scope), *(extra.name for extra in self.extras)))
        return f"--feature-set {spec}" + ("" if self.leader is None else f" --leader {self.leader}")

    @property
    def feature_set(self) -> FeatureSet:
        """The feature set of the rows it accepts.

        Raises:
            UsageError: there is no feature set with these windows, scope and leader.
            SchemaMismatch: its extra features are not installed, or are others.
        """
        return FeatureSet(self.windows, Scope.named(self.scope), self.leader, resolve_extras(self.extras))

    @property
    def source_profile(self) -> Profile | None:
        """The profile of its training rows; None if they had several."""
        return None if self.profile == ANY_PROFILE else Profile(self.profile)

    def missing_inputs(self, profile: Profile) -> dict[Supply, tuple[str, ...]]:
        """The features that rows of a profile have no value of, by what would supply them; {} for that of training."""
        missing: dict[Supply, tuple[str, ...]] = {}
        if profile == self.profile:
            return missing
        for name in self.features:
            feature = describe_feature(name)
            if feature is not None and feature.needs not in SUPPLIED[profile]:
                missing[feature.needs] = (*missing.get(feature.needs, ()), name)
        return missing

    def tick_counting_inputs(self, profile: Profile) -> tuple[str, ...]:
        """The features that count ticks, if those of training were quotes and those of this profile trades or reverse.

        () for a model that was trained on several profiles.
        """
        trained = self.source_profile
        if trained is None or (trained is Profile.TRADE) == (profile is Profile.TRADE):
            return ()
        described = ((name, describe_feature(name)) for name in self.features)
        return tuple(name for name, feature in described if feature is not None and feature.counts_ticks)

    @property
    def spike_definition(self) -> SpikeDefinition:
        """The definition of a spike; artifacts of older versions have the percentile only.

        Raises:
            UsageError: it is no definition of this version.
        """
        return SpikeDefinition.parse(self.spike or f"percentile:{self.label_percentile:g}")

    @property
    def spike_phrase(self) -> str:
        """The definition of a spike with τ, for documents."""
        definition = self.spike_definition
        tau = f" (τ = {self.tau:.3g})" if not definition.is_adaptive else f" (median τ in training {self.tau:.3g})"
        return definition.describe() + tau

    @property
    def venues(self) -> tuple[str, ...]:
        """The venues of the training data in alphabetical order; empty if they are not stated."""
        return tuple(sorted({market.venue for market in self.markets}))

    @property
    def threshold(self) -> float:
        """The probability from which there is an alert."""
        return self.thresholds[self.served_threshold]


def encode_metadata(metadata: Metadata) -> bytes:
    """The metadata as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(metadata), indent=2) + b"\n"


def decode_metadata(text: bytes) -> Metadata:
    """The metadata of a JSON text.

    Raises:
        msgspec.DecodeError: not JSON, or a field is missing, unknown or of another type; the message has its path.
        UnicodeDecodeError: a string is not UTF-8.
    """
    return msgspec.json.decode(text, type=Metadata)
