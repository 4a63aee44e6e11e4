"""The bodies that the API answers with; their JSON schemas are what ``/openapi.json`` tells."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Probability = Annotated[float, Meta(ge=0, le=1)]
Decision = Literal[0, 1]


class Prediction(Struct, kw_only=True):
    """The answer to one row. ``simulated`` is there, and true, only when the model learned from a simulated market."""

    prediction: Annotated[Decision, Meta(description="1 where the probability reaches the threshold")]
    probability: Annotated[Probability, Meta(description="of a volatility spike within the next 60 s")]
    alert: Annotated[bool, Meta(description="whether somebody should look: prediction is 1")]
    inference_time_ms: Annotated[float, Meta(description="time in the model alone, milliseconds")]
    model_version: str
    threshold: Probability
    simulated: Literal[True] | UnsetType = UNSET


class Predictions(Struct, kw_only=True):
    """The answer to several rows: lists in the order of the rows. ``scores`` is ``probability`` under an older name."""

    prediction: list[Decision]
    probability: list[Probability]
    scores: list[Probability]
    alert: list[bool]
    threshold: list[Probability]
    inference_time_ms: Annotated[float, Meta(description="time in the model for all rows, milliseconds")]
    model_version: str
    simulated: Literal[True] | UnsetType = UNSET


class RowFaults(Struct, kw_only=True):
    """What is wrong with one row, by its index from 0."""

    row: int
    missing: list[str]
    unknown: list[str]
    not_finite: list[str]


class Refusal(Struct, kw_only=True):
    """Why a body cannot be scored. ``rows`` is there when the body had rows and some of them are at fault."""

    detail: Annotated[str, Meta(description="what was wrong and what is wanted, in a sentence")]
    missing: list[str] = []
    unknown: Annotated[list[str], Meta(description="names that the model does not take")] = []
    not_finite: Annotated[list[str], Meta(description="names whose value is no finite number")] = []
    rows: list[RowFaults] | UnsetType = UNSET


class Problem(Struct):
    """Any other refusal."""

    detail: str


class Health(Struct, kw_only=True):
    """How the service is. ``kafka_connected`` is null where no Kafka pipeline runs."""

    status: Literal["healthy", "degraded"]
    timestamp: Annotated[str, Meta(description="now, ISO 8601, UTC")]
    model_loaded: bool
    model_version: str | None
    model_refused: Annotated[
        str | None, Meta(description="why the newest model in the served folder is not served, while an older one is")
    ]
    kafka_connected: bool | None
    reason: Annotated[str | None, Meta(description="why the service is degraded")]


class Live(Struct):
    """The process runs and its event loop turns."""

    status: Literal["alive"]


class Readiness(Struct):
    """Whether predictions can be had, and if not, why."""

    status: Literal["ready", "not_ready"]
    reason: str | None


class Version(Struct, kw_only=True):
    """What is running; what the model would say is null while there is none."""

    version: str
    model: str | None
    model_version: str | None
    model_digest: Annotated[str | None, Meta(description="the first 12 digits of the sha256 of the model's graph")]
    model_created: Annotated[str | None, Meta(description="when the model was trained, ISO 8601, UTC")]
    model_loaded_at: Annotated[str | None, Meta(description="since when it is served, ISO 8601, UTC")]
    model_refused: str | None
    model_path: str
    api_build_date: Annotated[str, Meta(description="when the running code was installed, ISO 8601, UTC")]
    feature_digest: str | None
    features: list[str]
    threshold: float | None
    simulated: bool | None


encode = msgspec.json.Encoder().encode
"""Answer → JSON bytes."""
