"""``volspike load-test``: latency and throughput of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import KeyFile, key_of, require_file
from volspike.cli.screen import err, out, table, warn, working
from volspike.errors import UsageError
from volspike.progress import OnStep, Step

if TYPE_CHECKING:
    from volspike.api.load_test import LoadMeasurement, LoadPlan, LoadReport, Target

EXAMPLES = "Example: volspike load-test --requests 1000 --concurrent 10 --output docs/load_test_results.json"

MOST_REQUESTS = 10_000_000
MOST_CLIENTS = 1000
BUSY_CLIENT = 0.9
"""CPU share of the client beyond which the result measures the client rather than the server."""


def run(
    url: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    requests: Annotated[int, typer.Option(help="Total number of requests.")] = 1000,
    concurrent: Annotated[int, typer.Option(help="Number of clients, each with at most one request in flight.")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests per second by the clock, timed from when each is due (default: as answers arrive)."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows in each request.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.")] = 30.0,
    output: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    api_key_file: KeyFile = None,
) -> None:
    """Send many prediction requests to a running server and report how long the answers took.

    Rows are generated for the served model; only the times mean something. Test only servers that are yours.
    """
    _check_options(requests, concurrent, rate, rows, timeout)
    require_file("--output", output, ".json")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output {output}: folder {output.parent} does not exist; create it first")
    report = _measure(url, requests, concurrent, rate, rows, timeout, api_key_file)
    _print_result(report)
    if output is not None:
        import msgspec

        output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        err.print(f"→ {output}", markup=False)


def _check_options(requests: int, concurrent: int, rate: float | None, rows: int, timeout: float) -> None:
    bounded = (
        ("--requests", requests, MOST_REQUESTS),
        ("--concurrent", concurrent, MOST_CLIENTS),
        ("--rows", rows, 10_000),
    )
    for name, value, most in bounded:
        if not 1 <= value <= most:
            raise UsageError(f"{name} takes 1 to {most}, got {value}")
    for name, number in (("--rate", rate), ("--timeout", timeout)):
        if number is not None and not 0.0 < number < float("inf"):
            raise UsageError(f"{name} must be above 0, got {number:g}")


def _measure(
    url: str, requests: int, concurrent: int, rate: float | None, rows: int, timeout: float, key_file: Path | None
) -> LoadReport:
    import asyncio
    from datetime import UTC, datetime

    import uvloop

    from volspike.api.load_test import LoadPlan, Target, build_report, example_bodies, fetch_version

    target, key = Target.of(url), key_of(key_file)
    if target.host not in {"127.0.0.1", "localhost", "::1"}:
        warn(f"{target.host} is another machine: test only servers that are yours; the times include the network")
    plan = LoadPlan(requests=requests, concurrent=min(concurrent, requests), rate=rate, timeout_s=timeout)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        version = runner.run(fetch_version(target, key, timeout))
        payloads = [target.request("POST", "/predict", body, key) for body in example_bodies(version.features, rows)]
        began = datetime.now(UTC)
        with working("sending requests") as show:
            measured = runner.run(_run_shown(target, payloads, plan, show))
    return build_report(
        measured,
        plan,
        url=url,
        timestamp=began.isoformat(timespec="seconds"),
        model_version=version.model_version or "",
        model_digest=version.model_digest or "",
        rows_per_request=rows,
    )


async def _run_shown(target: Target, payloads: list[bytes], plan: LoadPlan, show: OnStep) -> LoadMeasurement:
    """Runs the load; the progress is read from the counts twice a second, to leave the requests alone."""
    import asyncio

    from volspike.api.load_test import LoadMeasurement, run_load

    found = LoadMeasurement()
    running = asyncio.create_task(run_load(target, payloads, plan, found=found))
    while not running.done():
        answered = len(found.seconds) + sum(found.errors.values())
        show(Step(f"{answered:,} of {plan.requests:,} answered", answered / plan.requests))
        await asyncio.wait([running], timeout=0.5)
    return running.result()


def _print_result(report: LoadReport) -> None:
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
        f"{report.requests_per_second:,.0f} requests/s, {report.success_rate:.2%} succeeded in "
        f"{report.total_time_seconds:.2f} s"
    )
    for what, count in report.errors.items():
        warn(f"{count:,} failed: {what}{_HINTS.get(what, '')}")
    if report.rate is not None and report.requests_per_second < 0.95 * report.rate * report.success_rate:
        warn("the server, or the number of clients, did not keep up with the rate: requests were sent late")
    if report.client_cpu_share > BUSY_CLIENT:
        warn("the client used a full core: the server may be faster than measured")


_HINTS = {
    "status 429": " (rate limit of the server; start it with --rate-limit 0 to measure more)",
    "status 422": " (the server gives no probability for generated rows)",
    "status 401": " (the server requires a key: --api-key-file)",
}
