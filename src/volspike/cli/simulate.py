"""``volspike simulate``: the built-in simulated market as a tape, or as an exchange that speaks for five venues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import instant, on_stop_signals
from volspike.cli.screen import note_if_simulated, out, working
from volspike.errors import UsageError
from volspike.progress import OnStep, Step

if TYPE_CHECKING:
    from volspike.feeds.simulation.exchange import SimulatedExchange
    from volspike.market import Ticks

EXAMPLES = "Example: volspike simulate --port 8765 --pair BTC-USD --pair ETH-USD --speed 1 --seed 7"

START = "2026-01-05T00:00:00Z"
MINUTES = 180
LAST_NS = 2**63 - 1
"""The largest time in integer nanoseconds, in the year 2262."""


def run(
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Tape to write: .ndjson(.zst, .gz) or .parquet.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Serve the websocket protocols of five venues on this port; 0 for a free one.")
    ] = None,
    pair: Annotated[list[str], typer.Option(help="Products; with --port each on every venue.")] = ["BTC-USD"],  # noqa: B006
    minutes: Annotated[
        int | None, typer.Option(help="Minutes of market (default: 180 for a tape; a server runs until stopped).")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 7,
    start: Annotated[
        str | None, typer.Option(help=f"Start (RFC 3339; default: {START} for a tape, now for a server).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address for --port.")] = "127.0.0.1",
    speed: Annotated[
        float, typer.Option(help="With --port: market seconds per second; 0 for as fast as clients read.")
    ] = 1.0,
    drop: Annotated[float, typer.Option(help="With --port: share of frames lost, 0 to 1.")] = 0.0,
    delay: Annotated[float, typer.Option(help="With --port: share of frames delayed by 0.2 s.")] = 0.0,
    duplicate: Annotated[float, typer.Option(help="With --port: share of frames sent twice.")] = 0.0,
    reorder: Annotated[float, typer.Option(help="With --port: share of frames sent after the next.")] = 0.0,
    skip: Annotated[float, typer.Option(help="With --port: share of frames after which numbers are skipped.")] = 0.0,
    malformed: Annotated[float, typer.Option(help="With --port: share of frames followed by a malformed one.")] = 0.0,
    unknown: Annotated[float, typer.Option(help="With --port: share of frames followed by an unknown one.")] = 0.0,
    damage: Annotated[
        float, typer.Option(help="With --port: share of frames that are truncated or have an invalid price.")
    ] = 0.0,
    mistime: Annotated[float, typer.Option(help="With --port: share of frames with times 299 s ahead.")] = 0.0,
    silence_every: Annotated[
        float, typer.Option(help="With --port: market seconds between losses of 15 s; 0 for none.")
    ] = 0.0,
    close_every: Annotated[
        float, typer.Option(help="With --port: market seconds between closed connections; 0 for none.")
    ] = 0.0,
    close_code: Annotated[
        list[int], typer.Option(help="With --port: close codes, chosen at random; 0 for no close frame.")
    ] = [1001],  # noqa: B006
    snapshot_every: Annotated[
        float, typer.Option(help="With --port: market seconds between order books of 5 MB; 0 for none.")
    ] = 0.0,
    lifetime: Annotated[
        float, typer.Option(help="With --port: seconds after which a connection of Binance ends.")
    ] = 86_400.0,
    shutdown_notice: Annotated[
        float, typer.Option(help="With --port: seconds from the notice of a shutdown (Binance, OKX) to its end.")
    ] = 0.0,
) -> None:
    """Simulate a market as a tape or as an exchange to connect to: for trials, never as evidence."""
    if (out_file is None) == (port is None):
        raise typer.BadParameter("Missing option '--out' (a tape) or '--port' (a server); one of them")
    if out_file is not None:
        minutes = MINUTES if minutes is None else minutes
        ticks = write_simulated_tape(out_file, pair, minutes, seed, START if start is None else start)
        note_if_simulated(True)
        out.print(f"{ticks:,} ticks of {', '.join(pair)} over {minutes:,} min → {out_file}")
        return
    faults = {
        "drop": drop,
        "delay": delay,
        "duplicate": duplicate,
        "reorder": reorder,
        "skip": skip,
        "malformed": malformed,
        "unknown": unknown,
        "damage": damage,
        "mistime": mistime,
        "silence_every_s": silence_every,
        "close_every_s": close_every,
        "close_codes": close_code,
        "snapshot_every_s": snapshot_every,
    }
    if minutes is not None and minutes < 1:
        raise UsageError(f"--minutes must be at least 1, got {minutes}")
    _serve(
        {
            "products": pair,
            "seed": seed,
            "speed": speed,
            "seconds": 60 * (minutes or 0),
            "start": None if start is None else _begin(start, minutes or 0),
            "host": host,
            "port": port,
            "faults": faults,
            "lifetime_s": lifetime,
            "shutdown_notice_s": shutdown_notice,
            "kept": 0,
        }
    )


def write_simulated_tape(path: Path, pairs: list[str], minutes: int, seed: int, start: str = START) -> int:
    """Writes a tape of a simulated market, labelled in every line; returns the number of ticks."""
    from volspike.feeds.simulation.market import simulate_market
    from volspike.tape import write_ndjson, write_parquet
    from volspike.tape.names import is_tape

    if minutes < 1 or seed < 0 or not all(pairs):
        raise UsageError(
            "--minutes must be at least 1, --seed at least 0, and --pair must name products: "
            f"got {minutes}, {seed} and {pairs}"
        )
    begin = _begin(start, minutes)
    if not is_tape(path):
        raise UsageError(f"--out {path}: a tape's name ends in .ndjson, .ndjson.zst, .ndjson.gz or .parquet")
    write = write_parquet if path.suffix == ".parquet" else write_ndjson
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with working("simulating") as show:
            parts = _shown(simulate_market(pairs, minutes * 60, seed, begin), begin, minutes, show)
            return write(parts, path, simulated=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _shown(parts: Iterable[Ticks], begin: int, minutes: int, show: OnStep) -> Iterator[Ticks]:
    """The parts of a market; shows how much of its minutes has been passed on."""
    from volspike.market import SECOND_NS

    for part in parts:
        if len(part):
            passed = (int(part.time[-1]) - begin) / SECOND_NS / 60
            show(Step(f"{passed:,.0f} of {minutes:,} minutes", passed / minutes))
        yield part


def _begin(start: str, minutes: int) -> int:
    """The start of a market that ends within the range of nanoseconds."""
    from volspike.market import SECOND_NS, format_time

    begin = instant("--start", start)
    if begin + minutes * 60 * SECOND_NS > LAST_NS:
        raise UsageError(
            f"{minutes:,} minutes from {start} end after {format_time(LAST_NS)}: use fewer, or start earlier"
        )
    return begin


def _serve(given: dict[str, object]) -> None:
    """Runs the simulated exchange until it is stopped or its market ends."""
    import asyncio

    import msgspec

    from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings

    try:
        settings = msgspec.convert(given, SimulatedExchangeSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"simulated exchange: {error}") from error
    exchange = SimulatedExchange(settings)
    try:
        asyncio.run(_open(exchange))
    except OSError as error:
        raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error


async def _open(exchange: SimulatedExchange) -> None:
    import asyncio

    from volspike.feeds.simulation.exchange import PROTOCOLS

    stopped = asyncio.Event()
    async with exchange:
        on_stop_signals(stopped.set)
        note_if_simulated(True)
        for protocol in PROTOCOLS:
            out.print(f"{protocol:<18} {exchange.url(protocol)}")
        ends = [asyncio.ensure_future(event.wait()) for event in (stopped, exchange.is_over)]
        _, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set() and exchange.faults.shut_down():
            stopped.clear()  # a second signal ends it at once
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), exchange.settings.shutdown_notice_s)
        for end in waiting:
            end.cancel()
    record = exchange.record
    faults = ", ".join(f"{count:,} {fault}" for fault, count in sorted(record.faults.items())) or "none"
    out.print(f"{record.frames:,} frames to {exchange.connected:,} connections, {record.lost:,} lost; faults: {faults}")
