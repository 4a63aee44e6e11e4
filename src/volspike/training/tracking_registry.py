"""The registered model ``volspike``: a version for what each run chose, and two names that say which counts.

``challenger`` is the newest run's. ``champion`` is what was put into service: it moves when a run promotes its model,
or a user does. The first version has it, too, unless its split is no evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from volspike.models import METADATA_FILE
from volspike.models.metadata import decoded
from volspike.training.report import ModelReport, TrainingReport
from volspike.training.tracking_figures import tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

REGISTERED: Final = "volspike"
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
DIGEST_TAG: Final = "onnx_sha256"

_READY_WITHIN_S: Final = 30


def register(client: MlflowClient, report: TrainingReport, run_id: str, model_id: str) -> tuple[str, tuple[str, ...]]:
    """The number of the version that the chosen model, logged as ``model_id``, is now, and the aliases it was given."""
    known = _aliases(client)
    version = client.create_model_version(
        REGISTERED,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=_about(report) | tags(report),
        await_creation_for=_READY_WITHIN_S,
        model_id=model_id,
    )
    is_first = CHAMPION not in known and report.split_method != "stratified"
    given = (CHALLENGER, CHAMPION) if report.promoted is not None or is_first else (CHALLENGER,)
    for alias in given:
        client.set_registered_model_alias(REGISTERED, alias, version.version)
    return str(version.version), given


def make_champion(client: MlflowClient, version: str) -> None:
    """Moves ``champion`` to a version: its model is served from now on."""
    client.set_registered_model_alias(REGISTERED, CHAMPION, version)


def version_of(client: MlflowClient, onnx_sha256: str) -> str:
    """The newest version whose graph has this hash; "" where none has."""
    found = client.search_model_versions(f"name = '{REGISTERED}' and tags.{DIGEST_TAG} = '{onnx_sha256}'")
    return str(max((int(version.version) for version in found), default=""))


def chosen_model(report: TrainingReport) -> ModelReport:
    """What the report says of the model that it chose."""
    return next(model for model in report.models if model.model == report.chosen)


def _about(report: TrainingReport) -> dict[str, str]:
    """What a version is found by again, also when its model is put into service much later."""
    written = chosen_model(report).artifact
    told = {"model": report.chosen, "promoted": str(report.promoted is not None).lower()}
    if written is None:
        return told
    return told | {DIGEST_TAG: decoded((written / METADATA_FILE).read_bytes()).onnx_sha256}


def _aliases(client: MlflowClient) -> dict[str, str]:
    """Alias → version of the registered model, which is made where there is none."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client.create_registered_model(REGISTERED, description="How likely a spike is within the next 60 seconds.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return dict(client.get_registered_model(REGISTERED).aliases)
