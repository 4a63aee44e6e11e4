"""``volspike compact``: finished hours of recorded tapes to Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli.screen import note_if_simulated, out, warn, working

EXAMPLES = "Example: volspike compact --tape data/raw"


def run(
    tape: Annotated[Path, typer.Option(help="Folder of the recorded tapes.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the NDJSON files.")] = False,
) -> None:
    """Convert finished hours of recorded NDJSON into Parquet; the NDJSON is deleted after verification."""
    from volspike.tape import compact

    with working("compacting") as show:
        done = compact(tape, keep=keep, on_hour=lambda hour: show(f"compacting: {hour.tape.name} is done"))
    for note in done.notes:
        warn(f"{note.file}: {note.text}")
    note_if_simulated(any(hour.simulated for hour in done.hours))
    for hour in done.hours:
        damaged = f", {hour.rejected:,} damaged lines dropped" if hour.rejected else ""
        sizes = f"{_megabytes(hour.bytes_before)} → {_megabytes(hour.bytes_after)}"
        out.print(f"{hour.tape.name}: {hour.ticks:,} ticks of {len(hour.sources)} files, {sizes}{damaged}")
    ticks = sum(hour.ticks for hour in done.hours)
    out.print(f"{len(done.hours):,} hours compacted, {ticks:,} ticks; {len(done.removed):,} NDJSON files removed")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
