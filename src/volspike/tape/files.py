"""Which files are meant: paths, folders and globs become a list of tapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from volspike.errors import UsageError
from volspike.tape.hours import without_held
from volspike.tape.rejects import REJECTED_ENDING

LEDGER_NAME = "gaps.ndjson"
"""What the gap ledger of a folder is called (see ``ledger``)."""

PARQUET_ENDINGS = (".parquet",)
NDJSON_ENDINGS = tuple(kind + packed for kind in (".ndjson", ".jsonl", ".json") for packed in ("", ".zst", ".gz"))
_ENDINGS = "they end in .ndjson, .jsonl or .json (also with .zst or .gz), or in .parquet"


def is_parquet(path: Path) -> bool:
    """Whether the name of ``path`` is that of a Parquet tape."""
    return path.name.lower().endswith(PARQUET_ENDINGS)


def is_tape(path: Path) -> bool:
    """Whether the name of ``path`` is that of a tape; a file of rejected lines is none, nor is a gap ledger."""
    name = path.name.lower()
    if name == LEDGER_NAME or name.endswith(REJECTED_ENDING):
        return False
    return name.endswith(NDJSON_ENDINGS + PARQUET_ENDINGS)


def tapes_of(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """The tapes that paths, folders (their own tapes) and globs (``**`` goes deep) name, each once, by name.

    A recorded file whose ticks a compacted tape among them holds is left out; see ``hours``.

    Raises:
        UsageError: a source names no tape.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise UsageError("no tape was named")
    found: dict[Path, Path] = {}
    for source in given:
        for path in _expanded(source):
            found.setdefault(path.resolve(), path)
    return without_held(list(found.values()))


def _expanded(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _tapes(path.iterdir()) or _none(f"folder {source} holds no tape: {_ENDINGS}")
    if path.exists():
        return [path] if is_tape(path) else _none(f"{source} is no tape by its name: {_ENDINGS}")
    if any(sign in str(source) for sign in "*?["):
        return _tapes(_matches(path)) or _none(f"no tape matches {source}: {_ENDINGS}")
    return _none(f"no such tape: {source}")


def _matches(pattern: Path) -> Iterator[Path]:
    parts = pattern.parts
    wild = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return Path(*parts[:wild]).glob(str(Path(*parts[wild:])))


def _tapes(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if is_tape(path) and path.is_file())


def _none(text: str) -> list[Path]:
    raise UsageError(text)
