"""Which artifact a live run serves when several could be."""

from __future__ import annotations

from pathlib import Path

from volspike.models.artifact import METADATA_FILE
from volspike.models.default import DEFAULT_MODEL
from volspike.models.simulated import SIMULATED_MODEL


def model_to_serve(wished: Path | None, production: Path, *, simulated: bool) -> Path:
    """What was asked for, else what is in ``production``, else what ships for a market of this kind."""
    if wished is not None:
        return wished
    if (production / METADATA_FILE).is_file():
        return production
    return SIMULATED_MODEL if simulated else DEFAULT_MODEL
