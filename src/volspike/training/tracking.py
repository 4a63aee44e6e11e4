"""The settings of run tracking, and a training report as parameters, metrics and tags; without MLflow."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import distributions
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from volspike import __version__
from volspike.errors import UsageError
from volspike.training.report import STRATIFIED_WARNING, FoldResult, ModelResult, TrainingReport

if TYPE_CHECKING:
    from volspike.evaluation import Comparison

LOCAL_STORE: Final = "sqlite:///mlruns/mlflow.db"
"""A database file below the working directory; needs no server."""

_STORES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_DATABASE_FILE: Final = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")
_USER: Final = re.compile(r"://\S*@")
_SECRET: Final = re.compile(r"([?&;][^=&;\s]*(?:password|secret|token)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE)


class TrackingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The URI of an MLflow server or database, and the experiment; without a URI nothing is tracked."""

    tracking_uri: str = ""
    experiment: str = "volatility_detection"

    @property
    def is_on(self) -> bool:
        """Whether runs are tracked."""
        return bool(self.tracking_uri)

    def check(self) -> None:
        """Reject invalid settings before training; a server is not contacted yet.

        Raises:
            UsageError: MLflow is not installed, or the URI names neither a server nor a database.
        """
        if not self.is_on:
            return
        if find_spec("mlflow") is None:
            raise UsageError(
                "MLflow is not installed, so that the run cannot be tracked; install it with "
                "`pip install 'volspike[tracking]'`, or omit --mlflow-uri and $MLFLOW_TRACKING_URI"
            )
        kind = re.match(r"(\w+)(?:\+\w+)?://", self.tracking_uri)
        is_file = kind is not None and kind[1] == "sqlite"
        if kind is None or kind[1] not in _STORES or (is_file and database_file(self.tracking_uri) is None):
            raise UsageError(
                f"{masked(self.tracking_uri)!r} is neither an MLflow server nor a database; "
                f"use a URI such as http://localhost:5001 or {LOCAL_STORE}"
            )

    def __repr__(self) -> str:
        return f"TrackingSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("tracking_uri", masked(self.tracking_uri)), ("experiment", self.experiment)]


def database_file(uri: str) -> str | None:
    """The file of an SQLite database; None for any other URI.

    >>> database_file("sqlite:///mlruns/mlflow.db"), database_file("http://localhost:5001")
    ('mlruns/mlflow.db', None)
    """
    found = _DATABASE_FILE.fullmatch(uri.partition("?")[0])
    return found[1] if found else None


def masked(text: str) -> str:
    """``text`` with users, passwords and tokens of URIs masked.

    >>> masked("no answer from http://ada:pi/3@tracking:5001/api?token=abc&page=2")
    'no answer from http://***@tracking:5001/api?token=***&page=2'
    """
    return _SECRET.sub(r"\1***", _USER.sub("://***@", text))


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def list_packages() -> str:
    """Every installed distribution as a line of a requirements file, sorted by name."""
    installed = [distribution.metadata for distribution in distributions()]
    return "".join(sorted({f"{facts['Name']}=={facts['Version']}\n" for facts in installed}, key=str.lower))


def describe_machine() -> dict[str, str]:
    """Versions of volspike, Python and the operating system."""
    return {"volspike": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}


class LoggedMetric(NamedTuple):
    """A metric's name, value and step: the fold's number, or 0 for metrics of no fold."""

    name: str
    value: float
    step: int = 0


def model_metrics(model: ModelResult) -> list[LoggedMetric]:
    """All defined metrics of a model.

    ``fold/…`` has one step per fold, ``pooled/…`` covers the test rows of the selection folds, ``final/…`` the final
    block. Below each, ``baseline/`` is the best baseline and ``gain/`` the difference. ``_low`` and ``_high`` are the
    ends of the 95 % interval.
    """
    metrics = [
        *pooled_metrics(model),
        *_fold_metrics(model.folds),
        *(LoggedMetric(f"threshold/{name}", value) for name, value in model.thresholds.items()),
        LoggedMetric("tau", model.tau),
        LoggedMetric("export_difference", model.export_difference),
        LoggedMetric("seconds", model.seconds),
        LoggedMetric("search/best", model.search.best),
        LoggedMetric("search/defaults", model.search.defaults),
    ]
    return _defined(metrics)


def pooled_metrics(model: ModelResult) -> list[LoggedMetric]:
    """The metrics of ``pooled/…`` and ``final/…``."""
    return _defined([*_comparison_metrics("pooled", model.pooled), *_comparison_metrics("final", model.final)])


def run_parameters(report: TrainingReport) -> dict[str, str]:
    """The options of the run that were set, and the facts of its rows."""
    options = {field.name: getattr(report.request, field.name) for field in fields(report.request)}
    facts = {
        "rows": report.rows,
        "start": report.start,
        "end": report.end,
        "products": report.products,
        "split_method": report.split_method,
        "fold_by": report.fold_by,
        "embargo_s": report.embargo_s,
        "weights": report.weights,
        "has_selection": report.has_selection,
        "feature_columns": len({name for model in report.models for name in model.features}),
    }
    return _as_texts(options | facts)


def model_parameters(report: TrainingReport, model: ModelResult) -> dict[str, str]:
    """The parameters of one model: settings that differ from its defaults, columns, calibration and evaluation."""
    facts = {
        "model": model.model,
        "feature_columns": len(model.features),
        "left_out": model.left_out,
        "calibration": model.folds[-1].calibration,
        "served_threshold": model.threshold_name,
        "search_trials": model.search.trials,
        "final_block": model.folds[-1].block,
        "folds": len(model.folds),
        "split_method": report.split_method,
        "label_percentile": report.request.label_percentile,
        "seed": report.request.seed,
    }
    return _as_texts(facts | {f"settings/{name}": value for name, value in model.settings.items()})


def run_tags(report: TrainingReport) -> dict[str, str]:
    """The tags by which runs and registered models are found; ``warning`` only for a split that is no evidence."""
    tags = {
        "simulated": str(report.simulated).lower(),
        "split_method": report.split_method,
        "feature_digest": report.feature_digest,
        "products": " ".join(report.products),
        "baseline": report.best_baseline,
        "chosen": report.chosen,
    }
    return tags | ({"warning": STRATIFIED_WARNING} if report.split_method == "stratified" else {})


_FOLD_FIGURES: Final = (
    "tau",
    "threshold",
    "train_rows",
    "learned_rows",
    "validation_rows",
    "test_rows",
    "left_out_rows",
    "unscored_rows",
)


def _fold_metrics(folds: tuple[FoldResult, ...]) -> Iterator[LoggedMetric]:
    for fold in folds:
        for name, value, _ in _comparison_metrics("fold", fold.comparison):
            yield LoggedMetric(name, value, fold.fold)
        for name in _FOLD_FIGURES:
            yield LoggedMetric(f"fold/{name}", getattr(fold, name), fold.fold)


def _comparison_metrics(part: str, comparison: Comparison) -> Iterator[LoggedMetric]:
    baseline = comparison.baseline_name
    groups = {"model": part, baseline: f"{part}/baseline", f"{baseline}_events": f"{part}/baseline_events"}
    for group, figures in comparison.figures().items():
        prefix = groups.get(group, f"{part}/{group}")
        yield from (LoggedMetric(f"{prefix}/{name}", value) for name, value in figures.items() if value is not None)


def _defined(metrics: list[LoggedMetric]) -> list[LoggedMetric]:
    return [LoggedMetric(name, float(value), step) for name, value, step in metrics if isfinite(value)]


def _as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The values as text, without those that are None."""
    return {name: _as_text(value) for name, value in values.items() if value is not None}


def _as_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
