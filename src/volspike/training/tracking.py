"""Tracking that loses no run: where the store asked for cannot be used, the run goes into a local one, and says so.

It comes after training, when the artifacts are written, and nothing that goes wrong in it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volspike.training.report import TrainingReport
from volspike.training.tracking_client import opened, reason
from volspike.training.tracking_registry import REGISTERED, make_champion, version_of
from volspike.training.tracking_runs import Logged, log_report
from volspike.training.tracking_settings import LOCAL_STORE, TrackingSettings, database_file, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
