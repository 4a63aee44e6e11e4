"""The card of each artifact of a folder, beside its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import replacing
from volspike.models import Artifact
from volspike.reporting.card import model_card
from volspike.reporting.evaluate import artifact_folders

CARD_FILE: Final = "card.md"


def write_cards(folder: Path) -> tuple[Path, ...]:
    """Writes the card of every artifact in ``folder``, or of itself if it is one.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is not what was written.
        UsageError: a folder cannot be written to.
    """
    artifacts = [Artifact.load(path) for path in artifact_folders(folder)]
    files = tuple(artifact.directory / CARD_FILE for artifact in artifacts)
    for artifact, file in zip(artifacts, files, strict=True):
        with replacing(file) as part:
            part.write_text(model_card(artifact.metadata))
    return files
