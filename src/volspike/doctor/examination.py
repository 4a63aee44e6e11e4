"""All looks at once, each with the same short patience; a look that is slow holds up no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from volspike.config import FeedSettings
from volspike.doctor.finding import Finding
from volspike.doctor.machine import look_at_disk, look_at_gaps, look_at_model, look_at_packages
from volspike.doctor.services import (
    look_at_api,
    look_at_clock,
    look_at_feed,
    look_at_kafka,
    look_at_mlflow,
    look_at_prometheus,
)

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is looked at: addresses, folders, the model that was wished for (None: whatever would be served).

    ``rest`` is the exchange's REST address; ``kafka`` is None without Kafka's client. ``named`` has those of ``kafka``,
    ``mlflow``, ``prometheus`` and ``api`` whose address somebody gave: the others' silence is no fault. ``within_s``
    is the patience of each look in seconds.
    """

    feed: FeedSettings
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


async def examine(asked: Examination) -> list[Finding]:
    """Every finding, in a fixed order whatever answers first.

    Raises:
        UsageError: an address that is none.
    """
    within_s, named, now = asked.within_s, asked.named, time.time_ns()
    looks: tuple[Awaitable[list[Finding]], ...] = (
        asyncio.to_thread(look_at_packages),
        look_at_feed(asked.feed, within_s),
        look_at_clock(asked.rest, within_s),
        look_at_api(asked.api, "api" in named, within_s),
        asyncio.to_thread(look_at_kafka, asked.kafka, "kafka" in named, within_s),
        look_at_mlflow(asked.mlflow, "mlflow" in named, within_s),
        look_at_prometheus(asked.prometheus, "prometheus" in named, within_s),
        asyncio.to_thread(look_at_model, asked.model, asked.production, asked.feed),
        asyncio.to_thread(look_at_disk, asked.tape, asked.outcomes, now),
        asyncio.to_thread(look_at_gaps, asked.tape, now),
    )
    # none is cancelled halfway because another was asked for what cannot be
    found = await asyncio.gather(*looks, return_exceptions=True)
    return [finding for part in found for finding in _told(part)]


def _told(part: list[Finding] | BaseException) -> list[Finding]:
    if isinstance(part, BaseException):
        raise part
    return part
