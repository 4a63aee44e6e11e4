"""An artifact as an MLflow model: the same ONNX bytes, which ``volspike serve`` and ``mlflow.onnx`` both load."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from volspike.models import METADATA_FILE
from volspike.models.artifact import ONNX_FILE
from volspike.models.metadata import Metadata, decoded

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_RUNS_ON: Final = ("numpy", "onnx", "onnxruntime")


def log_model(client: MlflowClient, experiment_id: str, run_id: str, artifact: Path) -> str:
    """The id of the model that is now logged with the run ``run_id``: an artifact's folder, and what MLflow adds to it.

    Whoever downloads it has an artifact again. The graph alone does not know that a row which misses a value has no
    probability where ``accepts_missing`` is false: ``Artifact`` does.
    """
    from mlflow.entities import LoggedModelStatus  # noqa: PLC0415

    metadata = decoded((artifact / METADATA_FILE).read_bytes())
    logged = client.create_logged_model(
        experiment_id, name=metadata.model, source_run_id=run_id, tags=_tags(metadata), model_type="onnx"
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(artifact, metadata, folder, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def signature(metadata: Metadata) -> ModelSignature:
    """One column of numbers per feature in, which MLflow makes float32, and the float32 probability of a spike out."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, DataType, Schema  # noqa: PLC0415

    columns = [ColSpec(DataType.double, name) for name in metadata.features]
    return ModelSignature(Schema(columns), Schema([ColSpec(DataType.float, "probability")]))


def _save(artifact: Path, metadata: Metadata, folder: Path, **ids: str) -> None:
    import mlflow.onnx  # noqa: PLC0415
    import onnx  # noqa: PLC0415
    from mlflow.models import Model  # noqa: PLC0415

    mlflow.onnx.save_model(
        onnx.load(artifact / ONNX_FILE),
        str(folder),
        mlflow_model=Model(**ids),
        signature=signature(metadata),
        # told, since MLflow would find them out by running the model in a process of its own
        pip_requirements=[f"{name}=={version(name)}" for name in _RUNS_ON],
        onnx_execution_providers=["CPUExecutionProvider"],
        metadata=_notes(metadata),
        save_as_external_data=False,
    )
    # these bytes, whose hash the metadata tells, and not what onnx made of them
    for file in artifact.iterdir():
        shutil.copyfile(file, folder / file.name)


def _notes(metadata: Metadata) -> dict[str, Any]:
    return {
        "feature_digest": metadata.feature_digest,
        "horizon_s": metadata.horizon_s,
        "threshold": metadata.threshold,
        "accepts_missing": metadata.accepts_missing,
        "simulated": metadata.simulated,
    }


def _tags(metadata: Metadata) -> dict[str, str]:
    return {"simulated": str(metadata.simulated).lower(), "onnx_sha256": metadata.onnx_sha256}
