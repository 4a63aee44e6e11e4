"""``volspike convert``: tapes to another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volspike.cli.options import Origin, Timezone, is_simulated
from volspike.cli.screen import note_if_simulated, out, print_tape_report, reading

EXAMPLES = 'Example: volspike convert --raw "data/raw/*.ndjson" --out data/raw/december.parquet'


def run(
    raw: Annotated[list[str], typer.Option(help="Tapes, folders or globs.")],
    out_file: Annotated[Path, typer.Option("--out", help="Tape to write: .ndjson(.zst, .gz) or .parquet.")],
    timezone: Timezone = None,
    origin: Origin = None,
) -> None:
    """Convert tapes between NDJSON and Parquet; every column of every tick survives."""
    from volspike.tape import convert

    with reading("converting") as show:
        report = convert(raw, out_file, timezone=timezone, simulated=is_simulated(origin), on_progress=show)
    print_tape_report(report)
    note_if_simulated(report.simulated)
    out.print(f"{report.ticks:,} ticks → {out_file}")
