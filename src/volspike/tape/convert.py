"""Conversion of tapes: NDJSON to Parquet and back, or many tapes into one, in time order and constant memory."""

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
    keep_rejected: bool = True,
) -> TapeReport:
    """Writes the ticks of ``sources`` as one tape in the form of ``target``'s ending; returns a report.

    Every column of ``Tick`` is preserved exactly. An existing ``target`` is replaced when the new one is complete.

    Raises:
        UsageError: a source names no tape, or ``target`` is no tape by its name, is a source, or cannot be written.
        UnreadableFile: no tick in the sources, or a source is a Parquet file but no tape.
    """
    path = Path(target).expanduser()
    if not is_tape(path):
        raise UsageError(f"{target}: a tape's name ends in .ndjson, .ndjson.zst, .ndjson.gz or .parquet")
    paths = tapes_of(sources)
    if path.resolve() in {source.resolve() for source in paths}:
        raise UsageError(f"{target} is one of the sources: name another target")
    report = TapeReport() if report is None else report
    parts = read_ticks(paths, chunk=ROW_GROUP, report=report, keep_rejected=keep_rejected)
    first = next(parts)
    with _open(path, report.simulated) as tape:
        _write(tape, first, report)
        for part in parts:
            _write(tape, part, report)
    return report


def _open(path: Path, simulated: bool) -> TapeWriter | ParquetTape:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return ParquetTape(path, simulated=simulated) if is_parquet(path) else TapeWriter(path, simulated=simulated)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write(tape: TapeWriter | ParquetTape, part: Ticks, report: TapeReport) -> None:
    tape.simulated = report.simulated
    tape.write(part)
