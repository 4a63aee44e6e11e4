"""Which artifact is served when several could be."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from volspike.config import ServingSettings
from volspike.models.artifact import METADATA_FILE
from volspike.models.default import DEFAULT_MODEL
from volspike.models.fallback import BASELINE_MODEL
from volspike.models.metadata import decoded
from volspike.models.simulated import SIMULATED_MODEL
from volspike.models.ten import TEN_MODEL

BASELINE: Final = "baseline"
PRODUCTION: Final = "production"


def named_model(settings: ServingSettings) -> Path | None:
    """The folder that was asked for, whether or not anything is there; None where none was.

    The variant ``baseline`` is the one-variable way back to the z-score rule, so that nothing beats it: the rule of the
    last training where there is one, else the one that ships.
    """
    if settings.variant == BASELINE:
        trained = settings.artifacts / BASELINE
        return trained if holds_model(trained) else BASELINE_MODEL
    if settings.model is not None:
        return settings.model
    return None if settings.version is None else settings.artifacts / settings.version


def production_model(settings: ServingSettings) -> Path:
    """The folder that is served where nothing was asked for: promotions put models there."""
    return settings.artifacts / PRODUCTION


def model_to_serve(wished: Path | None, production: Path, *, simulated: bool) -> Path:
    """What was asked for, else what is in ``production``, else what ships for a market of this kind.

    What learned from a simulated market is in production for simulated ones alone.
    """
    if wished is not None:
        return wished
    if holds_model(production) and (simulated or not _is_made_up(production)):
        return production
    return SIMULATED_MODEL if simulated else DEFAULT_MODEL


def with_companion(settings: ServingSettings) -> ServingSettings:
    """The settings with a second model where none is named: it answers the ten features of the earlier system."""
    return msgspec.structs.replace(settings, companion=settings.companion or TEN_MODEL)


def holds_model(folder: Path) -> bool:
    """Whether an artifact was written there; it may still be damaged."""
    return (folder / METADATA_FILE).is_file()


def _is_made_up(folder: Path) -> bool:
    """Whether the model learned from a simulated market; a damaged one is told by whoever loads it."""
    try:
        return decoded((folder / METADATA_FILE).read_bytes()).simulated
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
