"""``volspike load-test``: how fast a running server answers, as a file that can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import KeyFile, key_of
from volspike.cli.screen import err, out, table, warn
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.api.load_test import LoadReport

EXAMPLES = "Example: volspike load-test --requests 1000 --concurrent 10 --output docs/load_test_results.json"

MOST_REQUESTS = 10_000_000
MOST_CLIENTS = 1000
BUSY_CLIENT = 0.9
"""From this share of a core on, the client is what was measured."""


def run(
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    requests: Annotated[int, typer.Option(help="How many in all.")] = 1000,
    concurrent: Annotated[int, typer.Option(help="Clients, each with one request in flight at most.")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second by the clock, timed from when each was due; absent: as answers come."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows in each request.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30.0,
    output: Annotated[Path | None, typer.Option(help="A file for the result (JSON).")] = None,
    api_key_file: KeyFile = None,
) -> None:
    """Send many prediction requests to a running server and report how long the answers took.

    Rows are generated for the served model; only the times mean something. Test only servers that are yours.
    """
    _refuse_nonsense(requests, concurrent, rate, rows, timeout)
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}; make it first")
    report = _measured(url, requests, concurrent, rate, rows, timeout, api_key_file)
    _tell(report)
    if output is not None:
        import msgspec

        output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        err.print(f"→ {output}", markup=False)


def _refuse_nonsense(requests: int, concurrent: int, rate: float | None, rows: int, timeout: float) -> None:
    bounded = (
        ("--requests", requests, MOST_REQUESTS),
        ("--concurrent", concurrent, MOST_CLIENTS),
        ("--rows", rows, 10_000),
    )
    for name, value, most in bounded:
        if not 1 <= value <= most:
            raise UsageError(f"{name} is 1 to {most}, was {value}")
    for name, number in (("--rate", rate), ("--timeout", timeout)):
        if number is not None and not 0.0 < number < float("inf"):
            raise UsageError(f"{name} is a number above 0, was {number:g}")


def _measured(
    url: str, requests: int, concurrent: int, rate: float | None, rows: int, timeout: float, key_file: Path | None
) -> LoadReport:
    import asyncio
    from datetime import UTC, datetime

    import uvloop

    from volspike.api.load_test import LoadPlan, Target, bodies, load, reported, served_by

    target, key = Target.of(url), key_of(key_file)
    if target.host not in {"127.0.0.1", "localhost", "::1"}:
        warn(f"{target.host} is not this machine: load only servers that are yours, and count the network's time in")
    plan = LoadPlan(requests=requests, concurrent=min(concurrent, requests), rate=rate, timeout_s=timeout)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        version = runner.run(served_by(target, key, timeout))
        asked = [target.request("POST", "/predict", body, key) for body in bodies(version.features, rows)]
        began = datetime.now(UTC)
        measured = runner.run(load(target, asked, plan))
    return reported(
        measured,
        plan,
        url=url,
        timestamp=began.isoformat(timespec="seconds"),
        model_version=version.model_version or "",
        model_digest=version.model_digest or "",
        rows_per_request=rows,
    )


def _tell(report: LoadReport) -> None:
    known = report.latency_ms
    shown = [f"{value:.2f}" if value is not None else "–" for value in (known.min, known.mean, known.median)]
    shown += [f"{value:.2f}" if value is not None else "–" for value in (known.p95, known.p99, known.max)]
    loop = "closed loop" if report.rate is None else f"open loop at {report.rate:g} requests/s"
    table(
        f"{report.model_version}: {report.total_requests:,} requests, {report.concurrent} clients, {loop}",
        ("", "min", "mean", "median", "p95", "p99", "longest"),
        [["ms", *shown]],
    )
    out.print(
        f"{report.requests_per_second:,.0f} requests/s, {report.success_rate:.2%} answered well in "
        f"{report.total_time_seconds:.2f} s"
    )
    for what, count in report.errors.items():
        warn(f"{count:,} failed: {what}{_HINTS.get(what, '')}")
    if report.rate is not None and report.requests_per_second < 0.95 * report.rate * report.success_rate:
        warn("the server, or so few clients, did not keep up with the rate: what was due has waited")
    if report.client_cpu_share > BUSY_CLIENT:
        warn("the client used a whole core: the server may be faster than it could ask")


_HINTS = {
    "status 429": " (the server's rate limit; start it with --rate-limit 0 to measure beyond)",
    "status 422": " (the server gives no probability for made-up rows)",
    "status 401": " (it wants a key: --api-key-file)",
}
