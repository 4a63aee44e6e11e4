"""A load test of ``/predict``: so many requests, by so many clients, one after the other or by the clock.

Closed loop: each client asks anew once it is answered, so that a slow server is asked less. Open loop (``rate``):
requests are due by the clock whether or not the server keeps up, and each is timed from when it was due, not from when
a client was free for it; else the slowest moments would hide what waited behind them (coordinated omission).
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time

import msgspec

from volspike.errors import UsageError
from volspike.serving.answers import Version
from volspike.serving.load_connection import Answer, LoadConnection, Target

OnAnswer = Callable[[Answer], None]
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How much is asked, by how many clients at once; ``rate`` is requests a second, None for a closed loop."""

    requests: int = 1000
    concurrent: int = 10
    rate: float | None = None
    timeout_s: float = 30.0


@dataclass(slots=True)
class Measured:
    """What was found: seconds of each request that was answered well, why the others were not, and the clocks."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    late_s: float = 0.0
    """How long after it was due the latest request was sent; 0 in a closed loop."""


async def served_by(target: Target, key: str | None, within_s: float) -> Version:
    """What the server says it serves.

    Raises:
        UsageError: nobody answers, it wants a key, or it is no volspike.
    """
    try:
        connection = await LoadConnection.open(target)
        answer = await connection.ask(target.request("GET", "/version", key=key), within_s)
        connection.close()
    except OSError as error:
        raise UsageError(
            f"no server at {target.host}:{target.port}: {error}; start one with `volspike serve`"
        ) from error
    if answer.status != OK:
        raise UsageError(f"{target.host}:{target.port} answers /version with status {answer.status}; is the key right?")
    try:
        version = msgspec.json.decode(answer.body, type=Version)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{target.host}:{target.port} is another server: its /version is not ours ({error})"
        ) from error
    if version.model is None:
        raise UsageError(f"{target.host}:{target.port} serves no model; its /health says why")
    return version


def bodies(features: Sequence[str], rows: int, variety: int = 16) -> list[bytes]:
    """``variety`` bodies of ``rows`` rows each (1: one row alone) of made-up values, the same in every run."""
    made = []
    for number in range(variety):
        told = [_row(features, number * rows + index) for index in range(rows)]
        made.append(msgspec.json.encode({"features": told[0]} if rows == 1 else {"rows": told}))
    return made


def _row(features: Sequence[str], number: int) -> dict[str, float]:
    """Small positive numbers, which every feature can be: a volatility of nothing has no logarithm."""
    return {name: round(1e-4 * (1 + (7 * number + 3 * place) % 97), 7) for place, name in enumerate(features)}


async def load(
    target: Target, requests: Sequence[bytes], plan: LoadPlan, on_answer: OnAnswer | None = None
) -> Measured:
    """Send the plan's number of requests, the given ones in turn; ``on_answer`` is told of each answer."""
    found = Measured()
    due = _due(plan)
    began, cpu = perf_counter(), process_time()
    clients = (_client(target, requests, plan, due, began, found, on_answer) for _ in range(plan.concurrent))
    await asyncio.gather(*clients)
    found.wall_s, found.client_cpu_s = perf_counter() - began, process_time() - cpu
    return found


def _due(plan: LoadPlan) -> Iterator[tuple[int, float | None]]:
    """Each request's number, and the seconds after the beginning at which it is due."""
    for number in range(plan.requests):
        yield number, None if plan.rate is None else number / plan.rate


async def _client(
    target: Target,
    requests: Sequence[bytes],
    plan: LoadPlan,
    due: Iterator[tuple[int, float | None]],
    began: float,
    found: Measured,
    on_answer: OnAnswer | None,
) -> None:
    """One client: takes the next request that nobody has, waits until it is due, asks, and notes what came of it."""
    connection: LoadConnection | None = None
    for number, after_s in due:
        start = perf_counter()
        if after_s is not None:
            await asyncio.sleep(max(0.0, began + after_s - start))
            start = min(began + after_s, perf_counter())  # a loop's clock is coarse, and may be early
            found.late_s = max(found.late_s, perf_counter() - start)
        try:
            if connection is None or not connection.is_open:
                async with asyncio.timeout(plan.timeout_s):
                    connection = await LoadConnection.open(target)
            answer = await connection.ask(requests[number % len(requests)], plan.timeout_s)
        except TimeoutError:
            found.errors["timeout"] += 1
        except OSError as error:
            found.errors[type(error).__name__] += 1
        else:
            if answer.status == OK:
                found.seconds.append(answer.at - start)
            else:
                found.errors[f"status {answer.status}"] += 1
            if on_answer is not None:
                on_answer(answer)
    if connection is not None:
        connection.close()
