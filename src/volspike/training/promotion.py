"""Putting a model into service: its whole folder, in place of the one before it, in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from volspike.models import METADATA_FILE, Artifact
from volspike.models.folder import replace_folder

PRODUCTION: Final = "production"
"""The folder among the artifacts that is served unless another is named."""


def promote(artifact: Path) -> Path:
    """Copy a written artifact to ``production`` beside it; returns where it stands now.

    Raises:
        UsageError: something else than an artifact stands there, or it cannot be written.
        ModelError: the artifact does not load.
    """
    place = artifact.parent / PRODUCTION
    files = {file.name: file.read_bytes() for file in artifact.iterdir() if file.is_file()}
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place
