"""MLflow's client of one store: without its chatter, without its telemetry, and soon tired of a server that is away.

An artifact as an MLflow model: the same ONNX bytes, which ``volspike serve`` and ``mlflow.onnx`` both load.

The registered model ``volspike``: a version for what each run chose, and two names that say which counts.

``challenger`` is the newest run's. ``champion`` is what was put into service: it moves when a run promotes its model,
or a user does. The first version has it, too, unless its split is no evidence.

One training run in a tracker: a run for the whole of it, and one below it for each model.

Tracking that loses no run: where the store asked for cannot be used, the run goes into a local one, and says so.

It comes after training, when the artifacts are written, and nothing that goes wrong in it is an error.
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
from volspike.models.metadata import Metadata, decoded
from volspike.training.report import ModelReport, TrainingReport
from volspike.training.tracking import (
    LOCAL_STORE,
    Figure,
    TrackingSettings,
    database_file,
    figures,
    file_sha256,
    machine,
    masked,
    model_parameters,
    packages,
    parameters,
    pooled_figures,
    tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

REACH_WITHIN_S: Final = 5
"""How long a server may take for its first answer, and for its last where one has failed."""

ANSWER_WITHIN_S: Final = 30
"""How long it may take for any later one: a forest takes its time to be stored."""

_COLOUR: Final = re.compile("\x1b\\[[0-9;]*m")

_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}

# urllib3 warns of each retry, and MLflow tells of every table that it makes
_LEVELS: Final = {"mlflow": logging.ERROR, "alembic": logging.ERROR, "urllib3.connectionpool": logging.ERROR}


@contextmanager
def opened(uri: str) -> Iterator[MlflowClient]:
    """A client of the store at ``uri``, which has answered; the folder and tables of a database file are made.

    MLflow takes its settings from the environment alone: they are put there, and taken away again at the end.

    Raises:
        Exception: whatever MLflow, the database or the network says of why it cannot be used.
    """
    store = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    with _environment({**_QUIET, **store, **_patience(ANSWER_WITHIN_S, retries=1)}), warnings.catch_warnings():
        # advice on models' classes and on its own libraries; what fails is raised
        warnings.simplefilter("ignore")
        # three seconds that a run which nobody tracks need not wait
        from mlflow import MlflowClient  # noqa: PLC0415

        if file := database_file(uri):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        with _logging(_LEVELS):
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            with in_a_hurry():
                client.search_experiments(max_results=1)
            yield client


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """For what is asked of a server that may be away: one try, for ``REACH_WITHIN_S``."""
    with _environment(_patience(REACH_WITHIN_S, retries=0)):
        yield


def reason(error: BaseException) -> str:
    """What an error goes back to, in one short line without secrets.

    >>> try:
    ...     raise ValueError("API request failed") from ConnectionRefusedError(111, "Connection refused")
    ... except ValueError as error:
    ...     print(reason(error))
    Connection refused
    """
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(masked(_COLOUR.sub("", str(told))).split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def _patience(seconds: int, *, retries: int) -> dict[str, str]:
    return {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            _restore(name, value)


def _restore(name: str, value: str | None) -> None:
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


_AT_ONCE: Final = 900
"""Figures in a request, and below it parameters: MLflow takes 1000 of all kinds together, 100 parameters among them."""

_NOTE_CHARACTERS: Final = 7000
_DIGEST_CHARACTERS: Final = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """The run of a whole training run, and the version of the registered model that its chosen one has."""

    experiment_id: str
    run_id: str
    version: str
    aliases: tuple[str, ...]


def log_report(
    client: MlflowClient, uri: str, experiment: str, report: TrainingReport, on_step: Callable[[str], None]
) -> Logged:
    """All of ``report`` in the store of ``client`` at ``uri``; a run that cannot be finished is marked as failed."""
    experiment_id = _experiment_id(client, uri, experiment)
    sha256 = file_sha256(report.request.features)
    told = tags(report) | {"data_sha256": sha256}
    about = {"mlflow.source.name": "volspike train", "mlflow.note.content": "\n\n".join(report.warnings)}
    name = f"train {report.request.features.stem}"
    with _run(client, experiment_id, name, told | machine() | about) as run_id:
        _log(client, run_id, parameters(report) | {"data_sha256": sha256}, pooled_figures(chosen_model(report)))
        _log_data(client, run_id, report, sha256)
        client.log_text(run_id, packages(), "requirements.txt")
        client.log_text(run_id, "".join(f"{sentence}\n" for sentence in report.warnings), "warnings.txt")
        logged = {}
        for model in (*report.models, *report.baselines):
            on_step(f"{model.model}: tracked")
            logged[model.model] = _log_one(client, experiment_id, report, model, told | {"mlflow.parentRunId": run_id})
        version, aliases = register(client, report, *logged[report.chosen])
    return Logged(experiment_id=experiment_id, run_id=run_id, version=version, aliases=aliases)


def _log_one(
    client: MlflowClient, experiment_id: str, report: TrainingReport, model: ModelReport, told: Mapping[str, str]
) -> tuple[str, str]:
    """The run of one model and, where it was written, its logged model ("" where not)."""
    role = {"model": model.model, "role": "baseline" if model.is_baseline else "model"}
    with _run(client, experiment_id, model.model, {**told, **role}) as run_id:
        model_id = ""
        if model.artifact is not None:
            model_id = log_model(client, experiment_id, run_id, model.artifact)
            for file in (model.artifact / METADATA_FILE, *model.plots):
                client.log_artifact(run_id, str(file))
        _log(client, run_id, model_parameters(report, model), figures(model), model_id)
    return run_id, model_id


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The experiment's id; where it is made in a database file, its artifacts go beside that."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    file = database_file(uri)
    return str(client.create_experiment(name, str(Path(file).resolve().parent / "artifacts") if file else None))


@contextmanager
def _run(client: MlflowClient, experiment_id: str, name: str, told: Mapping[str, str]) -> Iterator[str]:
    """The id of a new run, which is ended as finished or as failed."""
    limited = {key: value[:_NOTE_CHARACTERS] for key, value in told.items()}
    run_id = str(client.create_run(experiment_id, tags=limited, run_name=name).info.run_id)
    try:
        yield run_id
    except BaseException:
        # the store may be what failed: then this does as well, and what counts is what failed first
        with suppress(Exception), in_a_hurry():
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log(
    client: MlflowClient, run_id: str, texts: Mapping[str, str], numbers: Sequence[Figure], model_id: str = ""
) -> None:
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    now = time.time_ns() // 1_000_000
    client.log_batch(run_id, params=[Param(name, text) for name, text in texts.items()])
    metrics = [
        Metric(name, value, now, step, model_id=model_id or None, run_id=run_id) for name, value, step in numbers
    ]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _AT_ONCE])


def _log_data(client: MlflowClient, run_id: str, report: TrainingReport, sha256: str) -> None:
    """The feature file as the run's data set; MLflow's digests are shorter than a whole hash."""
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
class Tracking:
    """Where a run is tracked, without secrets, and what was logged there; None and "" where it is tracked nowhere."""

    store: str
    logged: Logged | None
    warnings: tuple[str, ...]

    def told(self) -> str:
        """One line on what was logged, and how to look at it."""
        if self.logged is None:
            return "tracked nowhere"
        aliases = " and ".join(self.logged.aliases)
        return (
            f"tracked in {self.store}: run {self.logged.run_id}, {REGISTERED} version {self.logged.version} "
            f"({aliases}); {_how_to_look(self.store)}"
        )


def track(report: TrainingReport, settings: TrackingSettings, on_step: Callable[[str], None]) -> Tracking:
    """Log ``report`` in the store of ``settings``, or in ``LOCAL_STORE`` where that fails, at whatever point.

    A server that does not answer within ``REACH_WITHIN_S`` is given up. Nothing is raised: a failure is a warning.
    ``on_step`` is told of each model.
    """
    failed: list[tuple[str, str]] = []
    for uri in dict.fromkeys((settings.tracking_uri, LOCAL_STORE)):
        store = masked(uri)
        try:
            with opened(uri) as client:
                logged = log_report(client, uri, settings.experiment, report, on_step)
        except Exception as error:  # noqa: BLE001 - MLflow, databases and the network share no error, and the models stand
            failed.append((store, reason(error)))
        else:
            return Tracking(store=store, logged=logged, warnings=_moved(failed, store))
    return Tracking(store="", logged=None, warnings=_lost(failed, report))


def crown(settings: TrackingSettings, version: str) -> str:
    """Moves the alias ``champion`` to a version in the store of ``settings``; why it could not be, or ""."""
    if not settings.is_on:
        return f"{REGISTERED} version {version} is served, and no tracker was named to note it in"
    return _crowned(settings, lambda _: version)


def crown_model(settings: TrackingSettings, onnx_sha256: str) -> str:
    """The same for the version that has a model's graph; one that was never tracked leaves the alias where it is."""
    return _crowned(settings, lambda client: version_of(client, onnx_sha256)) if settings.is_on else ""


def _crowned(settings: TrackingSettings, find: Callable[[MlflowClient], str]) -> str:
    try:
        with opened(settings.tracking_uri) as client:
            version = find(client)
            if not version:
                return f"{masked(settings.tracking_uri)} has no version of this model: its champion is another"
            make_champion(client, version)
    except Exception as error:  # noqa: BLE001 - as above
        return f"MLflow at {masked(settings.tracking_uri)} cannot be used ({reason(error)}): its champion is another"
    return ""


def _moved(failed: Sequence[tuple[str, str]], store: str) -> tuple[str, ...]:
    return tuple(
        f"MLflow at {asked} cannot be used ({why}): this run is tracked in {store} instead; {_how_to_look(store)}"
        for asked, why in failed
    )


def _lost(failed: Sequence[tuple[str, str]], report: TrainingReport) -> tuple[str, ...]:
    told = "; ".join(f"MLflow at {store} cannot be used ({why})" for store, why in failed)
    return (f"{told}: this run is tracked nowhere, and its models are in {report.request.artifacts}",)


def _how_to_look(store: str) -> str:
    if database_file(store):
        return f"see it with `mlflow ui --backend-store-uri {store}`"
    return f"see it at {store}" if store.startswith("http") else "see it with `mlflow ui`"
