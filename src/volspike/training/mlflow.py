"""Training runs in MLflow: one run per training run, one below it per model, and the registered model ``volspike``.

Each run registers its chosen model as a version with two aliases. ``challenger`` is the newest version. ``champion`` is
the served one: it moves when a run promotes its model or a user does; the first version gets it as well, unless its
split is no evidence.

Tracking follows training, when the artifacts are written, and never fails a run: if the configured store cannot be
used, the run is tracked in a local database instead, with a warning. MLflow itself is imported on first use.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from volspike.models import METADATA_FILE
from volspike.models.artifact import ONNX_FILE
from volspike.models.metadata import Metadata, decode_metadata
from volspike.training.report import ModelResult, TrainingReport
from volspike.training.tracking import (
    LOCAL_STORE,
    LoggedMetric,
    TrackingSettings,
    database_file,
    describe_machine,
    file_sha256,
    list_packages,
    masked,
    model_metrics,
    model_parameters,
    pooled_metrics,
    run_parameters,
    run_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

REACH_WITHIN_S: Final = 5
"""Timeout of the first request to a server, and of the request that marks a run as failed."""

ANSWER_WITHIN_S: Final = 30
"""Timeout of every other request; storing a large model takes time."""

_COLOUR: Final = re.compile("\x1b\\[[0-9;]*m")

_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}

# urllib3 warns of each retry, and MLflow reports every table it creates
_LEVELS: Final = {"mlflow": logging.ERROR, "alembic": logging.ERROR, "urllib3.connectionpool": logging.ERROR}


@contextmanager
def open_client(uri: str) -> Iterator[MlflowClient]:
    """A client of the store at ``uri`` after a first successful request; creates a missing database file.

    MLflow reads its settings from the environment only: they are set here and restored at the end.

    Raises:
        Exception: whatever MLflow, the database or the network raises if the store cannot be used.
    """
    store = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    with _environment({**_QUIET, **store, **_timeouts(ANSWER_WITHIN_S, retries=1)}), warnings.catch_warnings():
        # advice about model classes and MLflow's own libraries; failures are raised
        warnings.simplefilter("ignore")
        # three seconds to import, only for tracked runs
        from mlflow import MlflowClient  # noqa: PLC0415

        if file := database_file(uri):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        with _logging(_LEVELS):
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            with short_timeout():
                client.search_experiments(max_results=1)
            yield client


@contextmanager
def short_timeout() -> Iterator[None]:
    """Requests within get one attempt of ``REACH_WITHIN_S``: for a server that may be down."""
    with _environment(_timeouts(REACH_WITHIN_S, retries=0)):
        yield


def root_cause(error: BaseException) -> str:
    """The first error of a chain in one short line without secrets.

    >>> try:
    ...     raise ValueError("API request failed") from ConnectionRefusedError(111, "Connection refused")
    ... except ValueError as error:
    ...     print(root_cause(error))
    Connection refused
    """
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(masked(_COLOUR.sub("", str(message))).split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def _timeouts(seconds: int, *, retries: int) -> dict[str, str]:
    return {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _logging(levels: Mapping[str, int]) -> Iterator[None]:
    before: dict[str, Any] = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


_REQUIREMENTS: Final = ("numpy", "onnx", "onnxruntime")


def log_model(client: MlflowClient, experiment_id: str, run_id: str, artifact: Path) -> str:
    """Log an artifact's folder as a model of the run ``run_id``; returns the model's id.

    A download is a complete artifact again. The graph alone does not encode that an incomplete row has no probability
    if ``accepts_missing`` is false; ``Artifact`` does.
    """
    from mlflow.entities import LoggedModelStatus  # noqa: PLC0415

    metadata = decode_metadata((artifact / METADATA_FILE).read_bytes())
    logged = client.create_logged_model(
        experiment_id, name=metadata.model, source_run_id=run_id, tags=_model_tags(metadata), model_type="onnx"
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save_model(artifact, metadata, folder, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def build_signature(metadata: Metadata) -> ModelSignature:
    """Input: one numeric column per feature, which MLflow converts to float32. Output: the probability, float32."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, DataType, Schema  # noqa: PLC0415

    columns = [ColSpec(DataType.double, name) for name in metadata.features]
    return ModelSignature(Schema(columns), Schema([ColSpec(DataType.float, "probability")]))


def _save_model(artifact: Path, metadata: Metadata, folder: Path, **ids: str) -> None:
    import mlflow.onnx  # noqa: PLC0415
    import onnx  # noqa: PLC0415
    from mlflow.models import Model  # noqa: PLC0415

    mlflow.onnx.save_model(
        onnx.load(artifact / ONNX_FILE),
        str(folder),
        mlflow_model=Model(**ids),
        signature=build_signature(metadata),
        # given here because MLflow would otherwise run the model in another process to find them
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
        onnx_execution_providers=["CPUExecutionProvider"],
        metadata=_model_facts(metadata),
        save_as_external_data=False,
    )
    # the original bytes, whose hash is in the metadata, not those re-encoded by onnx
    for file in artifact.iterdir():
        shutil.copyfile(file, folder / file.name)


def _model_facts(metadata: Metadata) -> dict[str, Any]:
    return {
        "feature_digest": metadata.feature_digest,
        "horizon_s": metadata.horizon_s,
        "threshold": metadata.threshold,
        "accepts_missing": metadata.accepts_missing,
        "simulated": metadata.simulated,
    }


def _model_tags(metadata: Metadata) -> dict[str, str]:
    return {"simulated": str(metadata.simulated).lower(), "onnx_sha256": metadata.onnx_sha256}


REGISTERED: Final = "volspike"
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
DIGEST_TAG: Final = "onnx_sha256"

_READY_WITHIN_S: Final = 30


def register_chosen(
    client: MlflowClient, report: TrainingReport, run_id: str, model_id: str
) -> tuple[str, tuple[str, ...]]:
    """Register the chosen model, logged as ``model_id``; returns its version number and the aliases it got."""
    aliases = _registered_aliases(client)
    version = client.create_model_version(
        REGISTERED,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=_version_tags(report) | run_tags(report),
        await_creation_for=_READY_WITHIN_S,
        model_id=model_id,
    )
    is_first = CHAMPION not in aliases and report.split_method != "stratified"
    granted = (CHALLENGER, CHAMPION) if report.promoted is not None or is_first else (CHALLENGER,)
    for alias in granted:
        client.set_registered_model_alias(REGISTERED, alias, version.version)
    return str(version.version), granted


def find_version(client: MlflowClient, onnx_sha256: str) -> str:
    """The newest version whose graph has this SHA-256; "" if there is none."""
    versions = client.search_model_versions(f"name = '{REGISTERED}' and tags.{DIGEST_TAG} = '{onnx_sha256}'")
    return str(max((int(version.version) for version in versions), default=""))


def _version_tags(report: TrainingReport) -> dict[str, str]:
    """The tags by which a version is found again, also when its model is promoted much later."""
    written = report.result(report.chosen).artifact
    tags = {"model": report.chosen, "promoted": str(report.promoted is not None).lower()}
    if written is None:
        return tags
    return tags | {DIGEST_TAG: decode_metadata((written / METADATA_FILE).read_bytes()).onnx_sha256}


def _registered_aliases(client: MlflowClient) -> dict[str, str]:
    """Alias → version of the registered model, which is created if missing."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client.create_registered_model(
            REGISTERED, description="Probability of a volatility spike within the next 60 seconds."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return dict(client.get_registered_model(REGISTERED).aliases)


_METRICS_PER_REQUEST: Final = 900
"""Metrics per request: MLflow accepts 1000 entries, among them at most 100 parameters."""

_NOTE_CHARACTERS: Final = 7000
_DIGEST_CHARACTERS: Final = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """The MLflow run of a training run, and the registered version of its chosen model."""

    experiment_id: str
    run_id: str
    version: str
    aliases: tuple[str, ...]


def log_report(
    client: MlflowClient, uri: str, experiment: str, report: TrainingReport, on_step: Callable[[str], None]
) -> LoggedRun:
    """Log ``report`` in the store at ``uri``; a run that cannot be completed is marked as failed."""
    experiment_id = _experiment_id(client, uri, experiment)
    sha256 = file_sha256(report.request.features)
    tags = run_tags(report) | {"data_sha256": sha256}
    source = {"mlflow.source.name": "volspike train", "mlflow.note.content": "\n\n".join(report.warnings)}
    name = f"train {report.request.features.stem}"
    with _run(client, experiment_id, name, tags | describe_machine() | source) as run_id:
        _log_batch(
            client,
            run_id,
            run_parameters(report) | {"data_sha256": sha256},
            pooled_metrics(report.result(report.chosen)),
        )
        _log_data(client, run_id, report, sha256)
        client.log_text(run_id, list_packages(), "requirements.txt")
        client.log_text(run_id, "".join(f"{sentence}\n" for sentence in report.warnings), "warnings.txt")
        logged = {}
        for model in (*report.models, *report.baselines):
            on_step(f"{model.model}: tracking")
            logged[model.model] = _log_result(
                client, experiment_id, report, model, tags | {"mlflow.parentRunId": run_id}
            )
        version, aliases = register_chosen(client, report, *logged[report.chosen])
    return LoggedRun(experiment_id=experiment_id, run_id=run_id, version=version, aliases=aliases)


def _log_result(
    client: MlflowClient, experiment_id: str, report: TrainingReport, model: ModelResult, tags: Mapping[str, str]
) -> tuple[str, str]:
    """Log one model; returns its run id and, if its artifact was written, the id of the logged model ("" otherwise)."""
    role = {"model": model.model, "role": "baseline" if model.is_baseline else "model"}
    with _run(client, experiment_id, model.model, {**tags, **role}) as run_id:
        model_id = ""
        if model.artifact is not None:
            model_id = log_model(client, experiment_id, run_id, model.artifact)
            for file in (model.artifact / METADATA_FILE, *model.plots):
                client.log_artifact(run_id, str(file))
        _log_batch(client, run_id, model_parameters(report, model), model_metrics(model), model_id)
    return run_id, model_id


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The experiment's id; one created in a database file stores its artifacts next to that file."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    file = database_file(uri)
    return str(client.create_experiment(name, str(Path(file).resolve().parent / "artifacts") if file else None))


@contextmanager
def _run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """The id of a new run, which ends as FINISHED or FAILED."""
    limited = {key: value[:_NOTE_CHARACTERS] for key, value in tags.items()}
    run_id = str(client.create_run(experiment_id, tags=limited, run_name=name).info.run_id)
    try:
        yield run_id
    except BaseException:
        # if the store itself failed, this fails as well; the first error is the one to raise
        with suppress(Exception), short_timeout():
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log_batch(
    client: MlflowClient, run_id: str, texts: Mapping[str, str], numbers: Sequence[LoggedMetric], model_id: str = ""
) -> None:
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    now = time.time_ns() // 1_000_000
    client.log_batch(run_id, params=[Param(name, text) for name, text in texts.items()])
    metrics = [
        Metric(name, value, now, step, model_id=model_id or None, run_id=run_id) for name, value, step in numbers
    ]
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def _log_data(client: MlflowClient, run_id: str, report: TrainingReport, sha256: str) -> None:
    """Log the feature file as the run's data set; MLflow limits the length of a digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

    file = report.request.features
    profile = {"rows": report.rows, "start": report.start, "end": report.end, "feature_digest": report.feature_digest}
    data = Dataset(
        name=file.name,
        digest=sha256[:_DIGEST_CHARACTERS],
        source_type="local",
        source=json.dumps({"uri": str(file)}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingResult:
    """Where a run is tracked, without secrets, and what was logged; "" and None if it is not tracked."""

    store: str
    logged: LoggedRun | None
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """One line on what was logged and how to view it."""
        if self.logged is None:
            return "not tracked"
        aliases = " and ".join(self.logged.aliases)
        return (
            f"tracked in {self.store}: run {self.logged.run_id}, {REGISTERED} version {self.logged.version} "
            f"({aliases}); {_how_to_view(self.store)}"
        )


def track_run(report: TrainingReport, settings: TrackingSettings, on_step: Callable[[str], None]) -> TrackingResult:
    """Log ``report`` in the store of ``settings``; if that fails at any point, in ``LOCAL_STORE``.

    A server that does not answer within ``REACH_WITHIN_S`` counts as failed. Nothing is raised: a failure is a warning.
    ``on_step`` receives the name of each step.
    """
    failed: list[tuple[str, str]] = []
    for uri in dict.fromkeys((settings.tracking_uri, LOCAL_STORE)):
        store = masked(uri)
        try:
            with open_client(uri) as client:
                logged = log_report(client, uri, settings.experiment, report, on_step)
        except Exception as error:  # noqa: BLE001 - MLflow, databases and the network share no base error
            failed.append((store, root_cause(error)))
        else:
            return TrackingResult(store=store, logged=logged, warnings=_describe_fallback(failed, store))
    return TrackingResult(store="", logged=None, warnings=_describe_failure(failed, report))


def set_champion(settings: TrackingSettings, version: str) -> str:
    """Move the alias ``champion`` to a version; returns a warning if that failed, else ""."""
    if not settings.is_on:
        return f"{REGISTERED} version {version} is served; its alias `champion` was not set: no --mlflow-uri is given"
    return _set_champion(settings, lambda _: version)


def set_champion_by_digest(settings: TrackingSettings, onnx_sha256: str) -> str:
    """As ``set_champion``, for the version whose graph has this SHA-256; without one the alias does not move."""
    return _set_champion(settings, lambda client: find_version(client, onnx_sha256)) if settings.is_on else ""


def _set_champion(settings: TrackingSettings, find: Callable[[MlflowClient], str]) -> str:
    store = masked(settings.tracking_uri)
    try:
        with open_client(settings.tracking_uri) as client:
            version = find(client)
            if not version:
                return f"{store} has no version of this model: the alias `champion` was not moved"
            client.set_registered_model_alias(REGISTERED, CHAMPION, version)
    except Exception as error:  # noqa: BLE001 - as above
        return f"MLflow at {store} cannot be used ({root_cause(error)}): the alias `champion` was not moved"
    return ""


def _describe_fallback(failed: Sequence[tuple[str, str]], store: str) -> tuple[str, ...]:
    return tuple(
        f"MLflow at {uri} cannot be used ({why}): this run is tracked in {store} instead; {_how_to_view(store)}"
        for uri, why in failed
    )


def _describe_failure(failed: Sequence[tuple[str, str]], report: TrainingReport) -> tuple[str, ...]:
    failures = "; ".join(f"MLflow at {store} cannot be used ({why})" for store, why in failed)
    return (f"{failures}: this run is not tracked; its models are in {report.request.artifacts}",)


def _how_to_view(store: str) -> str:
    if database_file(store):
        return f"view it with `mlflow ui --backend-store-uri {store}`"
    return f"view it at {store}" if store.startswith("http") else "view it with `mlflow ui`"
