"""MLflow's client of one store: without its chatter, without its telemetry, and soon tired of a server that is away."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from volspike.training.tracking_settings import database_file, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
