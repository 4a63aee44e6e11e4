"""``volspike compact``: finished hours of recorded tapes to Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import require_amount
from volspike.cli.screen import note_if_simulated, out, warn, working
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.tape import Compaction
    from volspike.tape.upkeep import UpkeepResult

EXAMPLES = "Example: volspike compact --tape data/raw"


def run(
    tape: Annotated[Path, typer.Option(help="Folder of the recorded tapes.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the NDJSON files.")] = False,
    remove_later: Annotated[
        bool, typer.Option("--remove-later", help="Delete the NDJSON at the next call, for readers that have begun.")
    ] = False,
    keep_days: Annotated[
        float, typer.Option(help="Delete tapes that are older than this many days; 0 keeps all.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert finished hours of recorded NDJSON into Parquet; the NDJSON is deleted after verification."""
    from volspike.tape import compact, delete_expired

    require_amount("--keep-days", keep_days)
    if not tape.expanduser().is_dir():
        raise UsageError(f"{tape} is not a folder: name the folder of the tapes")
    try:
        result = delete_expired(tape.expanduser(), keep_days)
    except OSError as error:
        raise UsageError(f"{error.filename or tape}: {error.strerror or error}") from error
    with working("compacting") as show:
        done = compact(tape, keep=keep, remove_later=remove_later, on_step=show)
    if as_json:
        out.print(_json(result, done), markup=False, highlight=False, soft_wrap=True)
        return
    if result.deleted:
        size = _megabytes(result.deleted_bytes)
        out.print(f"{len(result.deleted):,} tapes older than {keep_days:g} days deleted, {size}")
    for note in done.notes:
        warn(f"{note.file}: {note.text}")
    note_if_simulated(any(hour.simulated for hour in done.hours))
    for hour in done.hours:
        damaged = f", {hour.rejected:,} damaged lines dropped" if hour.rejected else ""
        sizes = f"{_megabytes(hour.bytes_before)} → {_megabytes(hour.bytes_after)}"
        out.print(f"{hour.tape.name}: {hour.ticks:,} ticks of {len(hour.sources)} files, {sizes}{damaged}")
    ticks = sum(hour.ticks for hour in done.hours)
    out.print(f"{len(done.hours):,} hours compacted, {ticks:,} ticks; {len(done.removed):,} NDJSON files removed")


def _json(result: UpkeepResult, done: Compaction) -> str:
    import msgspec

    result.hours = len(done.hours)
    result.ticks = sum(hour.ticks for hour in done.hours)
    result.bytes_before = sum(hour.bytes_before for hour in done.hours)
    result.bytes_after = sum(hour.bytes_after for hour in done.hours)
    result.notes = [f"{note.file}: {note.text}" for note in done.notes]
    return msgspec.json.encode(result).decode()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
