"""One training run in a tracker: a run for the whole of it, and one below it for each model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from volspike.models import METADATA_FILE
from volspike.training.report import ModelReport, TrainingReport
from volspike.training.tracking_client import in_a_hurry
from volspike.training.tracking_facts import file_sha256, machine, packages
from volspike.training.tracking_figures import Figure, figures, model_parameters, parameters, pooled_figures, tags
from volspike.training.tracking_model import log_model
from volspike.training.tracking_registry import chosen_model, register
from volspike.training.tracking_settings import database_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
