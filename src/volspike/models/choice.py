"""The models that ship with the package, and the choice of the artifact to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from volspike.config import ServingSettings
from volspike.models.artifact import METADATA_FILE
from volspike.models.metadata import Metadata, decode_metadata

_MODELS: Final = Path(__file__).parent

DEFAULT_MODEL: Final = _MODELS / "default"
"""Serves live markets until a model is promoted."""
SIMULATED_MODEL: Final = _MODELS / "simulated"
"""Serves the simulated exchange. It was trained on that market and is of no use on a real one."""
BASELINE_MODEL: Final = _MODELS / "fallback"
"""The z-score rule: ``MODEL_VARIANT=baseline`` serves it if no baseline has been trained."""
TEN_MODEL: Final = _MODELS / "ten"
"""A model of the ten features of the earlier system, for clients that send these to ``/predict``."""

BASELINE: Final = "baseline"
PRODUCTION: Final = "production"


def named_model(settings: ServingSettings) -> Path | None:
    """The folder that the settings name, whether or not it exists; None if they name none.

    The variant ``baseline`` switches back to the z-score rule with one variable, so it precedes everything else: the
    rule of the last training run, otherwise the one that ships.
    """
    if settings.variant == BASELINE:
        trained = settings.artifacts / BASELINE
        return trained if holds_model(trained) else BASELINE_MODEL
    if settings.model is not None:
        return settings.model
    return None if settings.version is None else settings.artifacts / settings.version


def production_model(settings: ServingSettings) -> Path:
    """The folder of promoted models, which is served if the settings name none."""
    return settings.artifacts / PRODUCTION


def model_to_serve(requested: Path | None, production: Path, *, simulated: bool) -> Path:
    """The requested folder, otherwise ``production``, otherwise the shipped model for a market of this kind.

    A production model that was trained on a simulated market is used for simulated markets only.
    """
    if requested is not None:
        return requested
    if holds_model(production) and (simulated or not _is_simulated(production)):
        return production
    return shipped_model(simulated=simulated)


def shipped_model(*, simulated: bool) -> Path:
    """The folder of the model that ships for a market of this kind; it is served until a model is promoted."""
    return SIMULATED_MODEL if simulated else DEFAULT_MODEL


def origin_fault(metadata: Metadata, *, simulated: bool) -> str | None:
    """The reason not to serve a promoted model on a market of this kind, as ``model_to_serve`` decides; or None."""
    if simulated or not metadata.simulated:
        return None
    return (
        f"{metadata.model} was trained on a simulated market and is not served on a real one; promote a model of "
        "recorded data, or name this one with --model"
    )


def with_companion(settings: ServingSettings) -> ServingSettings:
    """The settings with a second model for the ten features of the earlier system, unless they name one."""
    return msgspec.structs.replace(settings, companion=settings.companion or TEN_MODEL)


def holds_model(folder: Path) -> bool:
    """Whether the folder contains an artifact, possibly a damaged one."""
    return (folder / METADATA_FILE).is_file()


def _is_simulated(folder: Path) -> bool:
    """Whether the model was trained on a simulated market; loading reports a damaged one."""
    try:
        return decode_metadata((folder / METADATA_FILE).read_bytes()).simulated
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
