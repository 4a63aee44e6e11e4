"""The file in which calibrations and alert levels survive a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from volspike.stores import rename_damaged

log = structlog.get_logger(__name__)


class CalibrationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calibrations and alert levels by product, and the model and the kind of market that they belong to."""

    model: str
    simulated: bool
    calibrations: dict[str, bytes]
    levels: dict[str, tuple[float, int]]


class CalibrationStore:
    """A file that each save replaces; without a path it stores nothing. A faulty disk stops nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def is_used(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def save(self, state: CalibrationFile) -> None:
        """Replace the file; a state without calibrations replaces nothing."""
        if self._path is None or not state.calibrations:
            return
        part = self._path.with_name(self._path.name + ".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.msgpack.encode(state))
            part.replace(self._path)
        except OSError as error:
            log.warning("calibration_not_saved", file=str(self._path), reason=str(error))

    def load(self, model: str, *, simulated: bool) -> CalibrationFile | None:
        """The file of an earlier run with the same model on the same kind of market; a damaged one is renamed."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            state = msgspec.msgpack.decode(self._path.read_bytes(), type=CalibrationFile)
        except OSError as error:
            log.warning("calibration_not_restored", file=str(self._path), reason=str(error))
            return None
        except msgspec.DecodeError as error:
            self.replace_damaged(str(error))
            return None
        return state if (state.model, state.simulated) == (model, simulated) else None

    def replace_damaged(self, reason: str) -> None:
        """Rename the file, so that a new one begins."""
        if self._path is not None:
            rename_damaged(self._path, reason)
