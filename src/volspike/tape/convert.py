"""A tape in another form: NDJSON to Parquet and back, or many tapes into one, in time order and constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from volspike.errors import UsageError
from volspike.market import Ticks
from volspike.tape.names import is_parquet, is_tape, tapes_of
from volspike.tape.parquet import ROW_GROUP, ParquetTape
from volspike.tape.reader import read_ticks
from volspike.tape.report import TapeReport
from volspike.tape.write import TapeWriter


def convert(
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    report: TapeReport | None = None,
    set_aside: bool = True,
) -> TapeReport:
    """Writes the ticks of ``sources`` as one tape, its form by the ending of ``target``; what was read is returned.

    Every column of ``Tick`` survives exactly. An existing ``target`` stays whole until the new one is.

    Raises:
        UsageError: a source names no tape, or ``target`` is no tape by its name, is a source, or cannot be written.
        UnreadableFile: there is not one tick in the sources, or one is a Parquet file and no tape.
    """
    path = Path(target).expanduser()
    if not is_tape(path):
        raise UsageError(f"{target}: a tape's name ends in .ndjson, .ndjson.zst, .ndjson.gz or .parquet")
    paths = tapes_of(sources)
    if path.resolve() in {source.resolve() for source in paths}:
        raise UsageError(f"{target} is one of the tapes to read: give the new one another name")
    told = TapeReport() if report is None else report
    parts = read_ticks(paths, chunk=ROW_GROUP, report=told, set_aside=set_aside)
    first = next(parts)
    with _opened(path, told.simulated) as tape:
        _write(tape, first, told)
        for part in parts:
            _write(tape, part, told)
    return told


def _opened(path: Path, simulated: bool) -> TapeWriter | ParquetTape:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return ParquetTape(path, simulated=simulated) if is_parquet(path) else TapeWriter(path, simulated=simulated)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write(tape: TapeWriter | ParquetTape, part: Ticks, report: TapeReport) -> None:
    tape.simulated = report.simulated
    tape.write(part)
