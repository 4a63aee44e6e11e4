"""The OpenAPI document and two plain HTML pages: the front page and the endpoints.

The document's schemas are those of the structs that are decoded and encoded. The pages have no script and load nothing
from other hosts, so they work without a network.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from msgspec import Struct

from volspike.api.edge import CORRELATION_HEADER
from volspike.api.schema import (
    Health,
    Live,
    ManyRows,
    OneRow,
    Prediction,
    Predictions,
    Problem,
    Readiness,
    Refusal,
    SnoozeList,
    SnoozeRequest,
    Version,
)

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

_STRUCTS: Final = (
    *(OneRow, ManyRows, Prediction, Predictions, Refusal, Problem, Health, Live, Readiness, Version),
    *(SnoozeRequest, SnoozeList),
)
_REFERENCES, _COMPONENTS = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
_REFERENCE_OF: Final = dict(zip(_STRUCTS, _REFERENCES, strict=True))

_CORRELATION_PARAMETER: Final = {
    "name": CORRELATION_HEADER,
    "in": "header",
    "required": False,
    "description": (
        "An id chosen by the client, 1 to 128 visible ASCII characters; it is returned in the response header. Any "
        "other value is replaced by a new id."
    ),
    "schema": {"type": "string"},
}


def operation(*query: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The ``openapi_extra`` of a route: its query parameters and other ``parts``, with the correlation id added."""
    parameters = [{"in": "query", "required": False, **parameter} for parameter in query]
    return {"parameters": [_CORRELATION_PARAMETER, *parameters], **parts}


PREDICT: Final = operation(
    requestBody={
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
)


def json_body(body: type[Struct], summary: str, example: Struct) -> dict[str, Any]:
    """The ``requestBody`` of an operation: a struct, with an example."""
    shown = {summary.replace(" ", "_"): {"summary": summary, "value": msgspec.to_builtins(example)}}
    return {"required": True, "content": {"application/json": {"schema": _REFERENCE_OF[body], "examples": shown}}}


def response(description: str, *bodies: type[Struct]) -> dict[str, Any]:
    """An entry of a route's ``responses``: its meaning and the structs that it may be."""
    schemas = [_REFERENCE_OF[body] for body in bodies]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


NO_KEY: Final = response("The server requires an API key, and the request has none or a wrong one.", Problem)


class Application(FastAPI):
    """A FastAPI application whose OpenAPI document has the schemas of the structs."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; built once."""
        document = super().openapi()
        document.setdefault("components", {})["schemas"] = _COMPONENTS
        return document


CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: 4px; }
h2 { margin: 2rem 0 .25rem; font-size: 1.15rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.2rem .2rem 0; font-weight: normal; }
th { white-space: nowrap; }
"""


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "\n".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table>\n{cells}\n</table>"


def front_page(version: Version, health: Health) -> str:
    """Version, status, model and links, as HTML."""
    rows = [("Version", escape(version.version)), ("Status", escape(health.status))]
    if version.model is None:
        rows.append(("Model", f"none: {escape(health.reason or 'unknown reason')}"))
    else:
        simulated = " <strong>SIMULATED</strong>: trained on a simulated market" if version.simulated else ""
        rows.append(("Model", f"{escape(version.model)}{simulated}"))
        rows.append(
            ("Alert threshold", f"probability {version.threshold:.4g} ({escape(version.threshold_name or '')})")
        )
        trained = f"{', '.join(version.products)}, venues {', '.join(version.venues) or 'not stated'}"
        rows.append(("Trained on", escape(f"{trained}, split {version.split_method}")))
        rows += [("Limitation", f"<strong>{escape(limitation)}</strong>") for limitation in version.limitations]
    links = [("/docs", "endpoints"), ("/health", "status"), ("/version", "code and model"), ("/metrics", "metrics")]
    items = "".join(f'<li><a href="{path[1:]}"><code>{path}</code></a>: {text}</li>' for path, text in links)
    summary = "The probability of a volatility spike within the next 60 seconds."
    return _page("volspike", f"<h1>volspike</h1>\n<p>{summary}</p>\n{_table(rows)}\n<ul>{items}</ul>")


def docs_page(document: dict[str, Any]) -> str:
    """The operations of an OpenAPI document in its order, with their examples, as HTML."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        '<p>OpenAPI document: <a href="openapi.json"><code>/openapi.json</code></a></p>',
    ]
    for path, operations in document["paths"].items():
        parts += [_operation_section(method, path, each) for method, each in operations.items()]
    return _page(f"{info['title']}: endpoints", "\n".join(parts))


def _operation_section(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    parts.append(f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for example in content.get("examples", {}).values():
        text = escape(json.dumps(example["value"], indent=2))
        parts.append(f"<p>Body, {escape(example['summary'])}:</p>\n<pre>{text}</pre>")
    answers = [(escape(status), escape(answer["description"])) for status, answer in operation["responses"].items()]
    parts.append(_table(answers))
    return "\n".join(parts)
