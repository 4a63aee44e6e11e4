"""A chaos run: ``ingest`` and ``up`` on both protocols, random faults of their exchanges, and ``kill -9``.

Each program records its own exchange into its own folder, in real time. Programs are killed in turn and started again
at once; the times and kinds of faults and kills follow from a seed.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.lifecycle.artifacts import artifact
from tests.streams.brokers.ports import free_ports

from tests_system.chaos.truth import PROTOCOLS, Journal
from tests_system.processes import VOLSPIKE, environment
from volspike.features import FeatureSet, compile_kernel
from volspike.feeds.simulation.controls import FaultControls
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import DAMAGES
from volspike.market import SECOND_NS
from volspike.models import TEN_FEATURES, TEN_MODEL

PRODUCTS: Final = ("BTC-USD", "ETH-USD", "SOL-USD")
COMMANDS: Final = ("ingest", "up")
WINDOWS: Final = (10, 30, 60)
"""Windows of the served model; the shipped ones are longer than most runs between two kills."""

HEAD_START_S: Final = 200
"""Market seconds sent at once at the start: the windows are full, and first outcomes are known."""

QUIET_S: Final = 4.0
"""Time without faults and kills before the end, in which every loss is noticed."""

PATIENCE_S: Final = 60.0

_HALVES: Final = (b"", b"not JSON", b"[]", b'{"channel":"ticker","events":7}', b'{"type":"ticker"}', b'{"type":"tick')


WRONG_BY_S: Final = (-86_400.0, -3_600.0, 299.0, 3_600.0, 100 * 365 * 86_400.0)
"""Errors of the exchange's times that no clock and no delay explains."""


def _product(chance: random.Random) -> str:
    return chance.choice(PRODUCTS)


FAULTS: Final[Mapping[str, Callable[[FaultControls, random.Random], int]]] = {
    "drop": lambda faults, chance: faults.drop(chance.choice((1, 1, 2, 5, 30))),
    "delay": lambda faults, chance: faults.delay(chance.uniform(0.05, 1.5)),
    "duplicate": lambda faults, chance: faults.duplicate(chance.randint(1, 5)),
    "reorder": lambda faults, _: faults.reorder(),
    "skip": lambda faults, chance: faults.skip(chance.randint(1, 1000)),
    "silence": lambda faults, chance: faults.silence(chance.choice((0.3, 2.0, 5.0, 12.0))),
    "close": lambda faults, chance: faults.close(chance.choice((1000, 1001, 1011, 1012, 0))),
    "shut_down": lambda faults, chance: faults.shut_down(chance.choice((0.0, 0.5, 2.0))),
    "malformed": lambda faults, chance: faults.malformed(chance.choice(_HALVES)),
    "damage": lambda faults, chance: faults.damage(chance.choice(DAMAGES), chance.choice((1, 1, 3, 10))),
    "mistime": lambda faults, chance: faults.mistime(chance.choice(WRONG_BY_S), chance.choice((1, 1, 3))),
    "reset": lambda faults, _: faults.reset(),
    "unknown": lambda faults, _: faults.unknown(),
    "snapshot": lambda faults, chance: faults.snapshot(_product(chance), chance.choice((10_000, 5_000_000))),
}
"""The faults that the exchange offers, by the name of their method, with their drawn extent.

``set_clock`` is not among them: from then on the exchange's times, by which ticks and rows are compared, are wrong.
"""


class Plan(NamedTuple):
    """What a run does: the times of faults and kills in seconds since its start, from ``seed``."""

    seed: int
    seconds: float
    faults: int
    kills: int

    def events(self) -> list[tuple[float, str]]:
        """All faults by name, and ``kill``, by time; kills are spread over the run so that every program warms up."""
        chance = random.Random(self.seed)  # noqa: S311  a seeded draw
        end = self.seconds - QUIET_S
        every = end / max(self.kills, 1)
        kills = [(every * (number + chance.random()), "kill") for number in range(self.kills)]
        names = [name for _ in range(-(-self.faults // len(FAULTS))) for name in FAULTS]
        chance.shuffle(names)
        return sorted([*kills, *((chance.uniform(0.0, end), name) for name in names[: self.faults])])


@dataclass
class Run:
    """One process from its start to its end (ns UTC of our clock), and what it published."""

    started: int
    ended: int = 0
    status: int | None = None
    points: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Program:
    """One command on one protocol: its exchange, its folder and its runs."""

    command: str
    protocol: str
    folder: Path
    exchange: SimulatedExchange
    arguments: tuple[str, ...]
    port: int
    runs: list[Run] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Command and protocol."""
        return f"{self.command}, {self.protocol}"

    @property
    def tape(self) -> Path:
        """The folder of the tape and its ledger."""
        return self.folder / "raw"

    @property
    def log(self) -> str:
        """Everything that its processes wrote to stderr."""
        return (self.folder / "log").read_text(errors="replace")

    async def start(self) -> None:
        """Start a process."""
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *VOLSPIKE, self.command, *self.arguments,
                cwd=self.folder,
                env=environment(COINBASE_WS_URL=self.exchange.url(self.protocol)),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )  # fmt: skip
        self.runs.append(Run(time.time_ns()))
        if self.command == "up":
            self._reading = asyncio.create_task(self._read_points(self.runs[-1]))

    async def end(self, number: signal.Signals) -> None:
        """Send a signal to the process and wait for its end."""
        assert self._process is not None
        run = self.runs[-1]
        run.ended = time.time_ns()
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            run.status = await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)

    async def wait_until_recording(self) -> None:
        """Wait until its market has reached the present and its newest run has written lines."""
        since = self.runs[-1].started
        async with asyncio.timeout(PATIENCE_S):
            while self.exchange.now < time.time_ns() - SECOND_NS or not self._has_written(since):
                await asyncio.sleep(0.1)

    def _has_written(self, since: int) -> bool:
        files = [file.stat() for file in self.tape.glob("ticks*")]
        return any(file.st_size and file.st_mtime_ns > since for file in files)

    async def _read_points(self, run: Run) -> None:
        """Keep the rows that the process publishes on ``/stream``, until it ends."""
        while True:
            with suppress(OSError, ValueError, asyncio.IncompleteReadError):
                async for name, data in stream_events("127.0.0.1", self.port):
                    if name == "tick":
                        run.points.append(data)
            await asyncio.sleep(0.1)


async def stream_events(host: str, port: int) -> AsyncIterator[tuple[str, Any]]:
    """The events of ``/stream`` with their data, until the server ends it.

    Raises:
        OSError: no server accepts the connection, or it broke.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 26)
    try:
        writer.write(f"GET /stream HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        name = ""
        while line := await reader.readline():
            label, _, value = line.decode().rstrip("\r\n").partition(": ")
            if label == "event":
                name = value
            elif label == "data":
                yield name, json.loads(value)
    finally:
        writer.close()


class Result(NamedTuple):
    """A program and the journal of its exchange, after the run."""

    program: Program
    journal: Journal


async def run_chaos(folder: Path, plan: Plan) -> list[Result]:
    """Run every program through the plan, then stop it with SIGTERM."""
    chance = random.Random(plan.seed + 1)  # noqa: S311  a seeded draw
    compile_kernel()  # else the first tick of every program waits for it
    async with AsyncExitStack() as ends:
        programs = await _open(folder, plan, ends)
        for program in programs:
            await program.start()
            ends.push_async_callback(program.kill)
        for program in programs:
            await program.wait_until_recording()
        await _strike(programs, plan, chance)
        for program in programs:
            await program.wait_until_recording()
        await asyncio.sleep(QUIET_S)
        for program in programs:
            await program.end(signal.SIGTERM)
        return [Result(program, Journal.of(program.exchange, program.protocol)) for program in programs]


async def _open(folder: Path, plan: Plan, ends: AsyncExitStack) -> list[Program]:
    """The programs, each with an exchange of its own that is open until the end."""
    model = artifact(
        folder / "model", TEN_MODEL,
        features=tuple(map(_shorter, TEN_FEATURES)), windows=WINDOWS,
        feature_digest=FeatureSet.of(list(WINDOWS), "core").digest,
    )  # fmt: skip
    programs = []
    pairs = [(command, protocol) for command in COMMANDS for protocol in PROTOCOLS]
    for number, (port, (command, protocol)) in enumerate(zip(free_ports(len(pairs)), pairs, strict=True)):
        settings = SimulatedExchangeSettings(
            products=PRODUCTS,
            seed=plan.seed + number,
            start=time.time_ns() - HEAD_START_S * SECOND_NS,
            head_start_s=HEAD_START_S,
            seconds=HEAD_START_S + round(plan.seconds) + 1800,
            subscribes=3 if protocol == PROTOCOLS[0] else 1,
            kept=1 << 24,
        )
        exchange = await ends.enter_async_context(SimulatedExchange(settings))
        place = folder / f"{command}_{protocol}"
        place.mkdir()
        arguments: tuple[str, ...] = ("--pair", *PRODUCTS, "--source", protocol)
        if command == "ingest":
            arguments += ("--out", "raw")
        else:
            arguments += ("--tape", "raw", "--outcomes", "outcomes.sqlite", "--model", str(model), "--port", str(port))
        programs.append(Program(command, protocol, place, exchange, arguments, port))
    return programs


def _shorter(feature: str) -> str:
    """A feature over the next shorter window, so that the model's windows are those of this test."""
    for ours, shipped in zip(WINDOWS, (30, 60, 300), strict=True):
        if feature.endswith(f"_{shipped}s"):
            return feature.replace(f"_{shipped}s", f"_{ours}s")
    raise ValueError(f"feature {feature} has no window")


async def _strike(programs: Sequence[Program], plan: Plan, chance: random.Random) -> None:
    """Carry out the plan: kills in turn, faults at a random program."""
    began = time.monotonic()
    kills = 0
    for at, name in plan.events():
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        if name == "kill":
            program = programs[kills % len(programs)]
            kills += 1
            await program.end(signal.SIGKILL)
            await program.start()
        else:
            program = await _strike_connected(programs, name, chance)
            program.faults[name] += 1


async def _strike_connected(programs: Sequence[Program], name: str, chance: random.Random) -> Program:
    """Cause a fault at a random program that is connected; waits until there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for program in chance.sample(programs, len(programs)):
                if FAULTS[name](program.exchange.faults, chance):
                    return program
            await asyncio.sleep(0.05)
