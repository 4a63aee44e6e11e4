"""``volspike simulate``: a tape of the built-in simulated market."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli.screen import note_if_simulated, out, working
from volspike.errors import UsageError

EXAMPLES = "Example: volspike simulate --pair BTC-USD --minutes 180 --seed 7 --out data/raw/simulated.ndjson"

START = "2026-01-05T00:00:00Z"
LAST_NS = 2**63 - 1
"""The last instant that integer nanoseconds hold, in the year 2262."""


def run(
    out_file: Annotated[Path, typer.Option("--out", help="The tape to write: .ndjson(.zst, .gz) or .parquet.")],
    pair: Annotated[list[str], typer.Option(help="Products.")] = ["BTC-USD"],  # noqa: B006
    minutes: Annotated[int, typer.Option(help="How long the market runs.")] = 180,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 7,
    start: Annotated[str, typer.Option(help="When it begins (RFC 3339).")] = START,
) -> None:
    """Write a tape of a simulated market: for trying things out, never as evidence."""
    ticks = write_simulated_tape(out_file, pair, minutes, seed, start)
    note_if_simulated(True)
    out.print(f"{ticks:,} ticks of {', '.join(pair)} over {minutes:,} min → {out_file}")


def write_simulated_tape(path: Path, pairs: list[str], minutes: int, seed: int, start: str = START) -> int:
    """Simulates ``minutes`` of a market into a tape that says so in every line; returns the number of ticks."""
    from volspike.feeds import simulate_market
    from volspike.tape import write_ndjson, write_parquet
    from volspike.tape.files import is_tape

    if minutes < 1 or seed < 0 or not all(pairs):
        raise UsageError(
            "--minutes must be at least 1, --seed at least 0, and --pair name products: "
            f"were {minutes}, {seed} and {pairs}"
        )
    begin = _begin(start, minutes)
    if not is_tape(path):
        raise UsageError(f"--out {path}: a tape's name ends in .ndjson, .ndjson.zst, .ndjson.gz or .parquet")
    write = write_parquet if path.suffix == ".parquet" else write_ndjson
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with working(f"simulating {minutes} minutes"):
            return write(simulate_market(pairs, minutes * 60, seed, begin), path, simulated=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _begin(start: str, minutes: int) -> int:
    """The first instant of a market that ends before nanoseconds do."""
    from volspike.market import SECOND_NS, instant, nanoseconds

    try:
        begin = nanoseconds(start)
    except ValueError as error:
        raise UsageError(f"--start: {error}") from error
    if begin + minutes * 60 * SECOND_NS > LAST_NS:
        raise UsageError(f"{minutes:,} minutes from {start} go beyond {instant(LAST_NS)}: take fewer, or begin earlier")
    return begin
