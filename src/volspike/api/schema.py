"""Request and response bodies of the API; their JSON schemas are the ones in ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from volspike.market import Mode
from volspike.monitoring.quiet import MOST_SNOOZE_MINUTES, Snooze

Probability = Annotated[float, Meta(ge=0, le=1)]
BinaryLabel = Literal[0, 1]
Features = Annotated[
    dict[str, float | None],
    Meta(
        description="every feature of the model (see /version), each a finite number, or null where it is unknown and "
        "the model accepts that"
    ),
]


class OneRow(Struct, forbid_unknown_fields=True):
    """One row to score."""

    features: Features


class ManyRows(Struct, forbid_unknown_fields=True):
    """Several rows to score."""

    rows: Annotated[list[Features], Meta(min_length=1)]


class HorizonPrediction(Struct, kw_only=True):
    """The prediction of one row for another horizon of the model; null where it is unknown."""

    horizon_s: int
    probability: float | None
    tau: float | None
    expected_volatility_bp: float | None
    volatility_low_bp: float | None
    volatility_high_bp: float | None


class Prediction(Struct, kw_only=True):
    """The response to one row.

    ``simulated`` is present, and true, only for a model of a simulated market, and ``horizons`` only for a model with
    other horizons.
    """

    prediction: Annotated[BinaryLabel, Meta(description="1 if the probability reaches the threshold")]
    probability: Annotated[Probability, Meta(description="of a volatility spike within the next `horizon_s` seconds")]
    alert: Annotated[bool, Meta(description="true if prediction is 1")]
    inference_time_ms: Annotated[float, Meta(description="time spent in the model, in milliseconds")]
    model_version: str
    threshold: Probability
    spike: Annotated[str, Meta(description="what counts as a spike, such as jump:2; see the glossary")]
    tau: Annotated[float | None, Meta(description="volatility per second from which the outcome is a spike")]
    horizon_s: Annotated[int, Meta(description="seconds that the probability and the volatility refer to")]
    expected_volatility_bp: Annotated[
        float | None,
        Meta(description="expected volatility over the horizon in basis points; null without its inputs"),
    ]
    volatility_low_bp: Annotated[float | None, Meta(description="10 % quantile of the volatility over the horizon")]
    volatility_high_bp: Annotated[float | None, Meta(description="90 % quantile of the volatility over the horizon")]
    horizons: list[HorizonPrediction] | UnsetType = UNSET
    simulated: Literal[True] | UnsetType = UNSET


class Predictions(Struct, kw_only=True):
    """The response to several rows: lists in the order of the rows. ``scores`` repeats ``probability``."""

    prediction: list[BinaryLabel]
    probability: list[Probability]
    scores: list[Probability]
    alert: list[bool]
    threshold: list[Probability]
    inference_time_ms: Annotated[float, Meta(description="time spent in the model for all rows, in milliseconds")]
    model_version: str
    spike: str
    horizon_s: int
    tau: list[float | None]
    expected_volatility_bp: list[float | None]
    volatility_low_bp: list[float | None]
    volatility_high_bp: list[float | None]
    horizons: list[list[HorizonPrediction]] | UnsetType = UNSET
    simulated: Literal[True] | UnsetType = UNSET


class RowFaults(Struct, kw_only=True):
    """The errors of one row; ``row`` is its index, starting at 0."""

    row: int
    missing: list[str]
    unknown: list[str]
    not_finite: list[str]


class Refusal(Struct, kw_only=True):
    """The errors in a body that cannot be scored. ``rows`` lists the invalid rows of a body with several."""

    detail: Annotated[str, Meta(description="what is wrong and what to send instead")]
    missing: list[str] = []
    unknown: Annotated[list[str], Meta(description="names that are not features of the model")] = []
    not_finite: Annotated[list[str], Meta(description="features whose value is not a finite number")] = []
    suggestions: Annotated[
        dict[str, str] | UnsetType, Meta(description="unknown name → the missing feature that it resembles")
    ] = UNSET
    model_version: Annotated[
        str | UnsetType,
        Meta(description="the model that the names refer to, if the server accepts several feature sets"),
    ] = UNSET
    rows: list[RowFaults] | UnsetType = UNSET


class Problem(Struct):
    """Any other error."""

    detail: str


class BackgroundFault(Struct, kw_only=True):
    """A background task whose last attempt failed; it is tried again after a pause."""

    task: str
    error: Annotated[str, Meta(description="its last error")]
    faults: Annotated[int, Meta(description="number of its errors since the start")]


class MissingInputs(Struct, kw_only=True):
    """Inputs of the model without a value, for one reason."""

    inputs: tuple[str, ...]
    reason: str
    seconds: Annotated[int | None, Meta(description="time until they have a value; null if unknown")]


class WarmUp(Struct, kw_only=True):
    """The warm-up of a product."""

    seconds: Annotated[
        int | None, Meta(description="time until the first probability; 0 if there is one, null if unknown")
    ]
    missing: list[MissingInputs]


ThresholdSource = Literal["model", "budget", "option"]


class ProductState(Struct, kw_only=True):
    """The newest row of a product of the source; ``time`` is null before the first."""

    product: str
    time: Annotated[str | None, Meta(description="time of the market, ISO 8601, UTC")]
    is_in_sample: Annotated[bool, Meta(description="whether the time lies within the model's own data")]
    threshold: Annotated[float, Meta(description="probability from which an alert opens")]
    threshold_source: Annotated[
        ThresholdSource,
        Meta(description="the model, its budget of alarm minutes, or the option --alert-threshold"),
    ]
    warm_up: WarmUp


class ReplayState(Struct, kw_only=True):
    """The progress of a replayed tape; times are milliseconds since the epoch, UTC."""

    is_ended: bool
    speed: Annotated[float, Meta(description="multiple of the original pace; 0 for no pace")]
    fraction: Annotated[Probability, Meta(description="share of the tape that was read")]
    start: Annotated[int, Meta(description="time of the first tick")]
    now: Annotated[int, Meta(description="time of the newest tick")]
    sessions: int
    skipped_s: Annotated[int, Meta(description="seconds of the tape skipped between sessions")]


class SessionState(Struct, kw_only=True):
    """The session with one exchange, by the name of its protocol; empty for a tape."""

    feed: str
    is_connected: bool
    reason: Annotated[str, Meta(description="reason of the last change of the connection")]
    silence_s: Annotated[float, Meta(description="seconds since the last frame")]


class SourceState(Struct, kw_only=True):
    """The source of a live pipeline."""

    name: str
    mode: Mode
    simulated: bool
    replay: ReplayState | None
    products: list[ProductState]
    disk_free_bytes: Annotated[
        int | None, Meta(description="free space on the disk of the tape; null if nothing is recorded")
    ] = None
    refused_products: Annotated[list[str], Meta(description="products that the exchange refuses at present")] = []
    sessions: Annotated[list[SessionState], Meta(description="one per exchange")] = []


class Health(Struct, kw_only=True):
    """The state of the service.

    ``kafka_connected`` is null if no Kafka pipeline runs; ``mode``, ``simulated`` and ``source`` are null without a
    live pipeline.
    """

    status: Literal["healthy", "degraded"]
    timestamp: Annotated[str, Meta(description="current time, ISO 8601, UTC")]
    model_loaded: bool
    model_version: str | None
    model_refused: Annotated[
        str | None, Meta(description="why the newest model was rejected while the previous one is served")
    ]
    kafka_connected: bool | None
    background_faults: Annotated[
        list[BackgroundFault], Meta(description="background tasks that currently fail; empty if all work")
    ]
    mode: Annotated[Mode | None, Meta(description="origin of the data that the pipeline scores")]
    simulated: Annotated[bool | None, Meta(description="whether that market is simulated")]
    source: SourceState | None
    reason: Annotated[str | None, Meta(description="why the service is degraded")]


class Live(Struct):
    """The process runs and its event loop responds."""

    status: Literal["alive"]


class Readiness(Struct):
    """Whether the service can predict, and the reason if it cannot."""

    status: Literal["ready", "not_ready"]
    reason: str | None


class Version(Struct, kw_only=True):
    """The running code and model; the model's fields are null while no model is served."""

    version: str
    model: str | None
    model_version: str | None
    model_digest: Annotated[str | None, Meta(description="first 12 digits of the SHA-256 of the model file")]
    model_created: Annotated[str | None, Meta(description="when the model was trained, ISO 8601, UTC")]
    model_loaded_at: Annotated[str | None, Meta(description="when the server started to serve it, ISO 8601, UTC")]
    model_refused: str | None
    model_path: str
    api_build_date: Annotated[str, Meta(description="when the running code was installed, ISO 8601, UTC")]
    feature_digest: str | None
    features: list[str]
    threshold: float | None
    spike: Annotated[str | None, Meta(description="what the model counts as a spike, such as jump:2")]
    spike_text: Annotated[str | None, Meta(description="the definition of a spike as a phrase")]
    horizon_s: int | None
    horizons: Annotated[list[int], Meta(description="all horizons of the model in seconds, horizon_s first")]
    simulated: Annotated[bool | None, Meta(description="whether the model was trained on a simulated market")]
    mode: Annotated[Mode | None, Meta(description="origin of the data that the pipeline scores; null without one")]
    threshold_name: Annotated[str | None, Meta(description="how the threshold was chosen, such as best_f1")]
    split_method: Annotated[
        str | None, Meta(description="the split behind the model's figures; stratified: no evidence")
    ]
    products: Annotated[list[str], Meta(description="the products that the model was trained on")]
    venues: Annotated[list[str], Meta(description="the venues of its training data; empty if they are not stated")]
    companion_version: Annotated[str | None, Meta(description="a second model, for clients that send its features")]
    companion_features: Annotated[list[str], Meta(description="the features of the second model")]
    companion_limitations: Annotated[list[str], Meta(description="what limits the figures of the second model")]
    limitations: Annotated[
        list[str], Meta(description="what limits its figures or its use here, such as NO EVIDENCE or another product")
    ]


class SnoozeRequest(Struct, forbid_unknown_fields=True):
    """A request to send no alerts for a while."""

    product: Annotated[str | None, Meta(description="a product of the source; null for all")]
    minutes: Annotated[int, Meta(ge=1, le=MOST_SNOOZE_MINUTES)]


class SnoozeList(Struct):
    """The present snoozes, that of all products first; ``until`` is in milliseconds since the epoch, UTC."""

    snoozes: list[Snooze]


encode = msgspec.json.Encoder().encode
"""Response body → JSON bytes."""
