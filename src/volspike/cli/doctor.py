"""``volspike doctor``: checks of an installation, with remedies."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volspike.cli.ingest import feed_settings
from volspike.cli.options import Options, Servers, cluster_settings
from volspike.cli.screen import out
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.config import ServingSettings
    from volspike.doctor.finding import Finding
    from volspike.streams.clients import KafkaSettings

EXAMPLES = "Example: volspike doctor --pair BTC-USD --timeout 5"

WIDTH = len("tape folder")
"""The longest name of a check."""

STYLES = {"fine": "green", "note": "cyan", "warning": "yellow", "bad": "bold red"}


def run(
    pair: Annotated[list[str] | None, typer.Option("--pair", "--pairs", help="Products (default: BTC-USD).")] = None,
    source: Annotated[
        str,
        typer.Option(
            help="auto for each product's venue, or a protocol (env COINBASE_WS_URL, BINANCE_WS_URL, … for another "
            "address)."
        ),
    ] = "auto",
    rest_url: Annotated[
        str | None,
        typer.Option(
            envvar="COINBASE_REST_URL",
            show_envvar=False,
            help="The exchange's REST address (env COINBASE_REST_URL; default https://api.exchange.coinbase.com).",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of an artifact (env MODEL_PATH; default: the model that `up` would serve)."),
    ] = None,
    tape: Annotated[Path, typer.Option(help="Folder of the tape and its gap ledger.")] = Path("data/raw"),
    outcomes: Annotated[Path, typer.Option(help="File of predictions and their outcomes.")] = Path(
        "data/outcomes.sqlite"
    ),
    api: Annotated[
        str | None, typer.Option(help="Address of the API (default: http at $API_HOST and $API_PORT).")
    ] = None,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="MLflow (env MLFLOW_TRACKING_URI; default http://localhost:5001).")
    ] = None,
    prometheus_url: Annotated[
        str | None,
        typer.Option(
            envvar="PROMETHEUS_URL",
            show_envvar=False,
            help="Prometheus (env PROMETHEUS_URL; default http://localhost:9090).",
        ),
    ] = None,
    history: Annotated[
        bool,
        typer.Option("--history", help="Check the addresses of `volspike history` instead, by one HEAD request each."),
    ] = False,
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="HISTORY_BASE_URL",
            show_envvar=False,
            help="Address of a mirror of the archives, for --history (env HISTORY_BASE_URL).",
        ),
    ] = None,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each check; all run at once.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a list.")] = False,
) -> None:
    """Check an installation: every finding with its severity and what to do. Nothing is changed.

    A service that was named by an option or a variable and does not answer is bad; one at its default address is only
    noted. Exit status 1 when anything is bad.
    """
    from volspike.config import ServingSettings, load_settings
    from volspike.doctor.finding import check_rest_url
    from volspike.doctor.machine import check_packages
    from volspike.feeds.venues import venue_settings

    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout must be above 0 s, got {timeout:g}")
    if history:
        _check_history(base_url, timeout, as_json=as_json)
        return
    if source == "simulator" or source.startswith("tape:"):
        raise UsageError(f"--source {source} is no exchange; name auto or a protocol")
    if rest_url is not None:
        check_rest_url(rest_url)
    serving = load_settings(ServingSettings, {"model": model}, os.environ, None, "serving")
    feeds = venue_settings(source, feed_settings(pair))
    cluster = _kafka(bootstrap_servers, kafka_option)
    named = {
        "api": api or os.environ.get("API_PORT"),
        "kafka": bootstrap_servers or os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        "mlflow": mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI"),
        "prometheus": prometheus_url,
    }
    findings = check_packages()
    if not as_json:
        _print_findings(findings)  # before the modules of the other checks are imported

    from volspike.doctor.examination import Examination, examine
    from volspike.feeds.rest import REST_URL
    from volspike.models.choice import named_model, production_model

    request = Examination(
        feeds=feeds,
        rest=rest_url or REST_URL,
        kafka=cluster,
        mlflow=named["mlflow"] or "http://localhost:5001",
        prometheus=prometheus_url or "http://localhost:9090",
        api=api or _own_address(serving),
        named=frozenset(name for name, address in named.items() if address),
        tape=tape,
        outcomes=outcomes,
        production=production_model(serving),
        model=named_model(serving),
        within_s=timeout,
    )
    findings += asyncio.run(examine(request, (lambda _: None) if as_json else _print_findings))
    _finish(findings, as_json=as_json)


def _check_history(base_url: str | None, timeout: float, *, as_json: bool) -> None:
    """Checks and prints the addresses of the public archives."""
    from datetime import UTC, datetime

    from volspike.doctor.services import check_history

    findings = asyncio.run(check_history(datetime.now(UTC).date(), base_url, timeout))
    if not as_json:
        _print_findings(findings, max(len(finding.check) for finding in findings))
    _finish(findings, as_json=as_json)


def _finish(findings: list[Finding], *, as_json: bool) -> None:
    """Prints the summary; exit status 1 if anything is bad."""
    import msgspec

    from volspike.doctor.finding import Severity, worst_of

    worst = worst_of(findings)
    if as_json:
        print(json.dumps({"worst": worst, "findings": [msgspec.to_builtins(finding) for finding in findings]}))
    else:
        _print_counts(findings)
    if worst is Severity.BAD:
        raise typer.Exit(1)


def _kafka(servers: str | None, options: list[str] | None) -> KafkaSettings | None:
    """The cluster; None if Kafka's client is not installed, which the check reports."""
    from importlib.util import find_spec

    return cluster_settings(servers, options) if find_spec("confluent_kafka") else None


def _own_address(serving: ServingSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(serving.host, serving.host)  # noqa: S104  compared, not bound
    return f"http://{host}:{serving.port}"


def _print_findings(findings: list[Finding], width: int = WIDTH) -> None:
    from rich.text import Text

    for finding in findings:
        line = Text.assemble(
            (f"{finding.severity:<8}", STYLES[finding.severity]), f"{finding.check:<{width}}  {finding.found}"
        )
        out.print(line)
        if finding.remedy:
            out.print(Text(f"{'':8}{'':{width}}  → {finding.remedy}"))


def _print_counts(findings: list[Finding]) -> None:
    counts: dict[str, Any] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    out.print(", ".join(f"{counts[each]} {each}" for each in STYLES if each in counts))
