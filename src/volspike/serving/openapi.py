"""What ``/openapi.json`` tells of bodies and errors: taken from the structs that are really decoded and encoded."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI
from msgspec import Meta, Struct

from volspike.serving.answers import Health, Live, Prediction, Predictions, Problem, Readiness, Refusal, Version
from volspike.serving.edge import CORRELATION_HEADER

EXAMPLE_FEATURES: Final = {
    "log_return_300s": 0.001,
    "spread_mean_300s": 0.5,
    "trade_intensity_300s": 100,
    "order_book_imbalance_300s": 0.6,
    "spread_mean_60s": 0.3,
    "order_book_imbalance_60s": 0.55,
    "price_velocity_300s": 0.0001,
    "realized_volatility_300s": 0.002,
    "order_book_imbalance_30s": 0.52,
    "realized_volatility_60s": 0.0015,
}

_Features = Annotated[
    dict[str, float], Meta(description="every feature that the model takes (see /version), each a finite number")
]


class OneRow(Struct, forbid_unknown_fields=True):
    """One row to score."""

    features: _Features


class ManyRows(Struct, forbid_unknown_fields=True):
    """Several rows to score."""

    rows: Annotated[list[_Features], Meta(min_length=1)]


_STRUCTS: Final = (OneRow, ManyRows, Prediction, Predictions, Refusal, Problem, Health, Live, Readiness, Version)
_REFERENCES, _COMPONENTS = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
_REFERENCE_OF: Final = dict(zip(_STRUCTS, _REFERENCES, strict=True))

_CORRELATION_PARAMETER: Final = {
    "name": CORRELATION_HEADER,
    "in": "header",
    "required": False,
    "description": (
        "An id of the client's own; it is in the answer's headers again where it is 1 to 128 visible ASCII characters, "
        "and a new one where it is not."
    ),
    "schema": {"type": "string"},
}
EVERYWHERE: Final[dict[str, Any]] = {"parameters": [_CORRELATION_PARAMETER]}
"""What belongs to every operation."""

PREDICT: Final[dict[str, Any]] = EVERYWHERE | {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [_REFERENCE_OF[OneRow], _REFERENCE_OF[ManyRows]]},
                "examples": {
                    "one": {"summary": "one row", "value": {"features": EXAMPLE_FEATURES}},
                    "many": {"summary": "several rows", "value": {"rows": [EXAMPLE_FEATURES, EXAMPLE_FEATURES]}},
                },
            }
        },
    }
}

STREAM: Final[dict[str, Any]] = {
    "parameters": [
        _CORRELATION_PARAMETER,
        {
            "name": "product",
            "in": "query",
            "required": False,
            "description": "Events of this product alone (BTC-USD), and those that belong to none.",
            "schema": {"type": "string"},
        },
        {
            "name": "alerts",
            "in": "query",
            "required": False,
            "description": "With a product: `all` for the other products' alerts as well.",
            "schema": {"type": "string", "enum": ["all"]},
        },
    ]
}


def told(description: str, *bodies: type[Struct]) -> dict[str, Any]:
    """An answer for a route's ``responses``: what it means and which of the structs it may be."""
    schemas = [_REFERENCE_OF[body] for body in bodies]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


class Application(FastAPI):
    """A FastAPI whose document holds the schemas of the structs."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made once."""
        document = super().openapi()
        document.setdefault("components", {})["schemas"] = _COMPONENTS
        return document
