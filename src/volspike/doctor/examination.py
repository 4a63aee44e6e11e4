"""All checks but that of the packages at once, each with the same time limit, so that a slow one delays no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from volspike.config import FeedSettings
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.machine import check_disk, check_gaps, check_model
from volspike.doctor.services import check_api, check_clock, check_feeds, check_kafka, check_mlflow, check_prometheus
from volspike.errors import UsageError
from volspike.live import scoring, sources

# the checks run in threads, and modules that import each other must not be imported in several threads at once
_IMPORTED_BEFORE_THE_THREADS = (scoring, sources)

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The scope of an examination.

    Attributes:
        feeds: the feed of each exchange and its products.
        rest: the exchange's REST address.
        kafka: the cluster; None if Kafka's client is not installed.
        mlflow, prometheus, api: addresses.
        named: those of ``kafka``, ``mlflow``, ``prometheus`` and ``api`` that the user named. If one of them does not
            answer, that is a problem; if another does not, it is only noted.
        tape: folder of the tapes.
        outcomes: file of the outcomes.
        production: folder of the production model.
        model: folder of the model requested; None for the one that would be served.
        within_s: time limit of each check in seconds.
    """

    feeds: Sequence[FeedSettings]
    rest: str
    kafka: KafkaSettings | None
    mlflow: str
    prometheus: str
    api: str
    named: frozenset[str]
    tape: Path
    outcomes: Path
    production: Path
    model: Path | None
    within_s: float


async def examine(request: Examination, on_findings: Callable[[list[Finding]], None] = lambda _: None) -> list[Finding]:
    """All findings, in a fixed order whatever answers first; ``on_findings`` receives those of each check as it ends.

    Raises:
        UsageError: an address is not valid.
    """
    within_s, named, now = request.within_s, request.named, time.time_ns()
    checks: dict[str, Awaitable[list[Finding]]] = {
        "feed": check_feeds(request.feeds, within_s),
        "clock": check_clock(request.rest, within_s),
        "api": check_api(request.api, "api" in named, within_s),
        "kafka": asyncio.to_thread(check_kafka, request.kafka, "kafka" in named, within_s),
        "mlflow": check_mlflow(request.mlflow, "mlflow" in named, within_s),
        "prometheus": check_prometheus(request.prometheus, "prometheus" in named, within_s),
        "model": asyncio.to_thread(check_model, request.model, request.production, request.feeds),
        "disk": asyncio.to_thread(check_disk, request.tape, request.outcomes, now),
        "gaps": asyncio.to_thread(check_gaps, request.tape, now),
    }

    async def finish(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
        found = await _findings(name, check)
        on_findings(found)
        return found

    # every check finishes, also when another one raises
    running = (finish(name, check) for name, check in checks.items())
    results = await asyncio.gather(*running, return_exceptions=True)
    findings: list[Finding] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        findings += result
    return findings


async def _findings(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    """The findings of a check; one finding for an unexpected error, which must not hide the other checks."""
    try:
        return await check
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  process boundary of a check: the finding names the error
        found = f"the check failed: {type(error).__name__}: {error}"
        return [Finding(check=name, severity=Severity.BAD, found=found, remedy="remove the cause that the error names")]
