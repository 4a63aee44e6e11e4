"""Every artifact of a folder, scored anew on a feature file's rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.dataset import PERSISTENCE
from volspike.errors import ArtifactMissing, NotEnoughData, SchemaMismatch
from volspike.market import instant
from volspike.models import METADATA_FILE, Artifact
from volspike.reporting.judged import Judged, judged
from volspike.reporting.rival import rival_of
from volspike.reporting.unseen import unseen_rows

PRODUCTION = "production"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """What a report tells; ``left_out`` has a sentence for each artifact that could not be judged."""

    features: Path
    products: tuple[str, ...]
    start: str
    end: str
    rows: int
    every: str
    profile: str
    simulated: bool
    models: tuple[Judged, ...]
    left_out: tuple[str, ...]


def artifact_folders(folder: Path) -> tuple[Path, ...]:
    """The folders with an artifact in ``folder``, by name; itself, if it is one.

    Raises:
        ArtifactMissing: there is none.
    """
    if (folder / METADATA_FILE).is_file():
        return (folder,)
    found = tuple(sorted(path.parent for path in folder.glob(f"[!.]*/{METADATA_FILE}")))
    if not found:
        raise ArtifactMissing(f"{folder}: no artifact in it; train one with `volspike train --artifacts {folder}`")
    return found


def evaluate(features: Path, folder: Path, on_step: Callable[[str], None]) -> Evaluation:
    """Judge every artifact in ``folder``; the one in service, if it is a copy of another, is judged once.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is not what was written.
        SchemaMismatch: one was trained on rows of another kind than the file's.
        UnreadableFile: no feature file, or one without labels.
        NotEnoughData: no artifact has rows that it has not seen.
        DataError: the file is not the one that an artifact says it was trained on.
    """
    artifacts = {path.name: Artifact.load(path) for path in artifact_folders(folder)}
    dataset = load_dataset(features)
    _check(features, artifacts.values(), dataset)
    served = artifacts[PRODUCTION].metadata.onnx_sha256 if PRODUCTION in artifacts else None
    models, left_out = [], []
    for name, artifact in _once(artifacts).items():
        on_step(f"{name}: scored on rows that it has not seen")
        try:
            models.append(_judged(features, name, artifact, dataset, served))
        except NotEnoughData as error:
            left_out.append(str(error))
    if not models:
        raise NotEnoughData(f"{features}: nothing to report; {'; '.join(left_out)}")
    facts = dataset.facts
    return Evaluation(
        features=features,
        products=dataset.products,
        start=instant(int(dataset.time.min())),
        end=instant(int(dataset.time.max())),
        rows=len(dataset),
        every=str(facts.every),
        profile=str(facts.profile),
        simulated=facts.simulated,
        models=tuple(models),
        left_out=tuple(left_out),
    )


def _check(features: Path, artifacts: Iterable[Artifact], dataset: Dataset) -> None:
    for artifact in artifacts:
        artifact.expects(dataset.facts.digest, str(dataset.facts.every), str(dataset.facts.profile))
    if not np.isfinite(dataset.persistence).any():
        raise SchemaMismatch(f"{features} has no last-minute volatility", missing=[PERSISTENCE])


def _once(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Without the one in service where another folder has the same graph."""
    others = {artifact.metadata.onnx_sha256 for name, artifact in artifacts.items() if name != PRODUCTION}
    return {
        name: artifact
        for name, artifact in artifacts.items()
        if name != PRODUCTION or artifact.metadata.onnx_sha256 not in others
    }


def _judged(
    features: Path,
    name: str,
    artifact: Artifact,
    dataset: Dataset,
    served: str | None,
) -> Judged:
    title = name if name == artifact.name else f"{name} ({artifact.name})"
    unseen = unseen_rows(features, dataset, artifact.metadata)
    if not len(unseen.rows):
        raise NotEnoughData(f"{title} is left out: {unseen.told}")
    rival = rival_of(artifact, dataset, unseen.rows)
    is_in_service = artifact.metadata.onnx_sha256 == served
    return judged(artifact, dataset, unseen, rival, title=title, is_in_service=is_in_service)
