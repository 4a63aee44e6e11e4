"""Two plain pages: what runs here, and the endpoints. No script, nothing from elsewhere, so no network is needed."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

from volspike.serving.answers import Health, Version

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
    """What runs here and where to look."""
    rows = [("Version", escape(version.version)), ("Status", escape(health.status))]
    if version.model is None:
        rows.append(("Model", f"none: {escape(health.reason or 'not told')}"))
    else:
        simulated = " <strong>SIMULATED</strong>: it learned from a simulated market" if version.simulated else ""
        rows.append(("Model", f"{escape(version.model)}{simulated}"))
        rows.append(("Alerts from", f"probability {version.threshold:.4g}"))
    links = [("/docs", "how to ask"), ("/health", "how it is"), ("/version", "what runs"), ("/metrics", "counts")]
    items = "".join(f'<li><a href="{path}"><code>{path}</code></a>: {words}</li>' for path, words in links)
    summary = "How likely a market is to be in a volatility spike within the next 60 seconds."
    return _page("volspike", f"<h1>volspike</h1>\n<p>{summary}</p>\n{_table(rows)}\n<ul>{items}</ul>")


def docs_page(document: dict[str, Any]) -> str:
    """The operations of an OpenAPI document, in its order, with their examples."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        '<p>For programs: <a href="/openapi.json"><code>/openapi.json</code></a></p>',
    ]
    for path, operations in document["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in operations.items()]
    return _page(f"{info['title']}: endpoints", "\n".join(parts))


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    parts.append(f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for example in content.get("examples", {}).values():
        text = escape(json.dumps(example["value"], indent=2))
        parts.append(f"<p>Body, {escape(example['summary'])}:</p>\n<pre>{text}</pre>")
    answers = [(escape(status), escape(answer["description"])) for status, answer in operation["responses"].items()]
    parts.append(_table(answers))
    return "\n".join(parts)
