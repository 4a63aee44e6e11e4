"""Where training runs are tracked; and that nobody reads the password in its address.

What a run stood on: the feature file by its hash, and every package by its version.

A training report as what a tracker takes: parameters as text, figures by name and step, tags. Nothing of MLflow.
"""

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
from typing import Any, Final, NamedTuple

import msgspec

from volspike import __version__
from volspike.errors import UsageError
from volspike.evaluation import Comparison
from volspike.training.evaluate import STRATIFIED_WARNING
from volspike.training.report import FoldReport, ModelReport, TrainingReport

LOCAL_STORE: Final = "sqlite:///mlruns/mlflow.db"
"""A database file below the working folder, which needs no server."""

_STORES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_DATABASE_FILE: Final = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")
_USER: Final = re.compile(r"://\S*@")
_SECRET: Final = re.compile(r"([?&;][^=&;\s]*(?:password|secret|token)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE)


class TrackingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An MLflow server or database by its URI, and the experiment there; without a URI nothing is tracked."""

    tracking_uri: str = ""
    experiment: str = "volatility_detection"

    @property
    def is_on(self) -> bool:
        """Whether anything is to be tracked."""
        return bool(self.tracking_uri)

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained; a server is not asked yet.

        Raises:
            UsageError: MLflow is not installed, or the URI is neither a server's nor a database's.
        """
        if not self.is_on:
            return
        if find_spec("mlflow") is None:
            raise UsageError(
                "MLflow is not installed, and a run cannot be tracked without it; "
                "`pip install 'volspike[tracking]'`, or leave --mlflow-uri and $MLFLOW_TRACKING_URI out"
            )
        kind = re.match(r"(\w+)(?:\+\w+)?://", self.tracking_uri)
        is_file = kind is not None and kind[1] == "sqlite"
        if kind is None or kind[1] not in _STORES or (is_file and database_file(self.tracking_uri) is None):
            raise UsageError(
                f"{masked(self.tracking_uri)!r} is no MLflow server and no database; "
                f"name one as in http://localhost:5001 or {LOCAL_STORE}"
            )

    def __repr__(self) -> str:
        return f"TrackingSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("tracking_uri", masked(self.tracking_uri)), ("experiment", self.experiment)]


def database_file(uri: str) -> str | None:
    """The file of an SQLite database; None where the URI names something else.

    >>> database_file("sqlite:///mlruns/mlflow.db"), database_file("http://localhost:5001")
    ('mlruns/mlflow.db', None)
    """
    found = _DATABASE_FILE.fullmatch(uri.partition("?")[0])
    return found[1] if found else None


def masked(text: str) -> str:
    """``text`` without the users, passwords and tokens that stand in URIs.

    >>> masked("no answer from http://ada:pi/3@tracking:5001/api?token=abc&page=2")
    'no answer from http://***@tracking:5001/api?token=***&page=2'
    """
    return _SECRET.sub(r"\1***", _USER.sub("://***@", text))


def file_sha256(file: Path) -> str:
    """The hash of a file's bytes, as ``sha256sum`` tells it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def packages() -> str:
    """Every installed distribution as a line of a requirements file, in order of their names."""
    told = [one.metadata for one in distributions()]
    return "".join(sorted({f"{one['Name']}=={one['Version']}\n" for one in told}, key=str.lower))


def machine() -> dict[str, str]:
    """The versions that a figure can depend on besides the packages'."""
    return {"volspike": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}


class Figure(NamedTuple):
    """A number under a name, as of a step: a fold's number, 0 for what is of no fold."""

    name: str
    value: float
    step: int = 0


def figures(model: ModelReport) -> list[Figure]:
    """All that a model was measured by, as far as it is defined.

    ``fold/…`` has one step per fold, ``pooled/…`` is over the selection folds' test rows and ``final/…`` over the final
    block's; below each, ``baseline/`` stands for the best rule's and ``gain/`` for the difference. ``_low`` and
    ``_high`` are the ends of the 95 % interval.
    """
    told = [*pooled_figures(model), *_of_folds(model.folds)]
    told += [Figure(f"threshold/{name}", value) for name, value in model.thresholds.items()]
    told += [Figure("tau", model.tau), Figure("export_difference", model.export_difference)]
    told += [Figure("seconds", model.seconds)]
    told += [Figure("search/best", model.search.best), Figure("search/defaults", model.search.defaults)]
    return _defined(told)


def pooled_figures(model: ModelReport) -> list[Figure]:
    """Those of ``pooled/…`` and ``final/…`` alone."""
    return _defined([*_compared("pooled", model.pooled), *_compared("final", model.final)])


def parameters(report: TrainingReport) -> dict[str, str]:
    """What the run was asked for, as far as it was told, and what it found out about its rows."""
    asked = {field.name: getattr(report.request, field.name) for field in fields(report.request)}
    found = {
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
    return _texts(asked | found)


def model_parameters(report: TrainingReport, model: ModelReport) -> dict[str, str]:
    """How one model was made: its settings where they differ from its defaults, its columns, and how it was judged."""
    served = model.folds[-1]
    made = {
        "model": model.model,
        "feature_columns": len(model.features),
        "left_out": model.left_out,
        "calibration": served.calibration,
        "served_threshold": model.threshold_name,
        "search_trials": model.search.trials,
        "final_block": served.block,
        "folds": len(model.folds),
        "split_method": report.split_method,
        "label_percentile": report.request.label_percentile,
        "seed": report.request.seed,
    }
    return _texts({**made, **{f"settings/{name}": value for name, value in model.settings.items()}})


def tags(report: TrainingReport) -> dict[str, str]:
    """What runs and registered models are looked for by; ``warning`` only where the split is no evidence."""
    told = {
        "simulated": str(report.simulated).lower(),
        "split_method": report.split_method,
        "feature_digest": report.feature_digest,
        "products": " ".join(report.products),
        "baseline": report.best_baseline,
        "chosen": report.chosen,
    }
    return told | ({"warning": STRATIFIED_WARNING} if report.split_method == "stratified" else {})


def _of_folds(folds: tuple[FoldReport, ...]) -> Iterator[Figure]:
    for fold in folds:
        yield from (Figure(name, value, fold.fold) for name, value, _ in _compared("fold", fold.comparison))
        for name in ("tau", "threshold", "train_rows", "learned_rows", "validation_rows", "test_rows", "left_out_rows"):
            yield Figure(f"fold/{name}", getattr(fold, name), fold.fold)


def _compared(part: str, comparison: Comparison) -> Iterator[Figure]:
    baseline = comparison.baseline_name
    groups = {"model": part, baseline: f"{part}/baseline", f"{baseline}_events": f"{part}/baseline_events"}
    for group, told in comparison.figures().items():
        place = groups.get(group, f"{part}/{group}")
        yield from (Figure(f"{place}/{name}", value) for name, value in told.items() if value is not None)


def _defined(told: list[Figure]) -> list[Figure]:
    return [Figure(name, float(value), step) for name, value, step in told if isfinite(value)]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Without those that were not told, which are None."""
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
