"""A retraining run: load rows, decide, train a challenger, compare it with the champion, wait in shadow, promote.

A failure at any point leaves the served model unchanged. Everything is written to a temporary folder and replaces
existing files in one step at the very end; each run appends a line to the history with its reason and figures.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import build_features, label_file, row_second
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import PARQUET, facts_of, open_feature_file, row_group, write_atomically
from volspike.errors import NotEnoughData, UsageError
from volspike.features import Every
from volspike.lifecycle.challenger import (
    Champion,
    Shadow,
    Verdict,
    compare_challenger,
    evaluate_shadow,
    held_out_rows,
    load_challenger,
    load_champion,
    refuse_challenger,
    remove_challenger,
    start_shadow,
)
from volspike.lifecycle.need import RetrainingNeed, RetrainingRequest, assess_need
from volspike.lifecycle.promotion import (
    Event,
    HistoryEntry,
    append_entry,
    entry_about,
    exclusive_access,
    promote,
    recover_artifacts,
)
from volspike.market import SECOND_NS, format_time
from volspike.models import Artifact, Metadata
from volspike.monitoring.drift import drift_result
from volspike.monitoring.results import DriftResult, TrainingOutcome, TrainingResult, write_result
from volspike.progress import OnStep, Step, part
from volspike.tape import TapeReport, ledgers_of, read_ticks, tapes_of
from volspike.tape.names import read_tape_name
from volspike.training.folds import last_of_each_second
from volspike.training.mlflow import set_champion, track_run
from volspike.training.report import TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train_on

RUN_FOLDER: Final = ".retraining.run-"

RunOutcome = Literal["no_challenger", "not_needed", "waits", "rejected", "promoted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingResult:
    """How a run ended and why.

    ``need`` is None if a challenger in shadow decided the run, ``verdict`` if no models were compared. ``place`` is the
    folder of the promoted or waiting model.
    """

    outcome: RunOutcome
    reasons: tuple[str, ...]
    model: str
    simulated: bool
    need: RetrainingNeed | None = None
    verdict: Verdict | None = None
    place: Path | None = None
    warnings: tuple[str, ...] = ()


def retrain(request: RetrainingRequest, on_step: OnStep, now: Callable[[], int] = time.time_ns) -> RetrainingResult:
    """Run once, with exclusive access to the artifacts. ``now`` returns ns UTC.

    Raises:
        UsageError: an invalid option, or another run is retraining.
        DataError: rows that cannot be read, or too few to train on.
        ModelError: the model in production is damaged, or does not fit the rows.
    """
    request.check()
    with exclusive_access(request.artifacts, "retraining"):
        remove_leftovers(request.artifacts)
        try:
            with _run_folder(request.artifacts) as folder:
                return _Run(request, folder, on_step, now).execute()
        except Exception as error:  # process boundary: recorded in the history, then raised again
            _record_failure(request, error, now())
            raise


def remove_leftovers(artifacts: Path) -> None:
    """Remove what killed runs have left in the artifacts folder; to be called with exclusive access for retraining."""
    recover_artifacts(artifacts)
    for folder in artifacts.glob(".retraining.*"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _run_folder(artifacts: Path) -> Iterator[Path]:
    """The temporary folder of a run, which also holds all other temporary files of the process.

    The next run removes it if this one is killed.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=RUN_FOLDER, dir=artifacts) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


class _Run:
    """One run; its files are in the temporary ``folder`` until one of them is to be kept."""

    def __init__(self, request: RetrainingRequest, folder: Path, on_step: OnStep, now: Callable[[], int]) -> None:
        self._request, self._folder, self._on_step, self._now = request, folder, on_step, now
        self._warnings: list[str] = []
        self._features = request.features or folder

    def execute(self) -> RetrainingResult:
        if self._request.only_shadow and load_challenger(self._request.artifacts) is None:
            return RetrainingResult(outcome="no_challenger", reasons=(), model="", simulated=False)
        champion, dataset = self._load_rows()
        decided = self._decide_shadow(dataset, champion)
        if decided is not None:
            return decided
        self._on_step(Step("measuring drift", 0.3))
        need = assess_need(self._request, dataset, champion, self._now())
        if need.drift is not None:
            self._keep_result(drift_result(need.drift, self._now()))
        if self._request.if_needed and not need.is_needed:
            self._append("checked", champion.artifact.metadata, need.reasons, need.figures(), need.severity)
            return self._result("not_needed", champion.artifact.metadata, need.reasons, need=need)
        return self._challenge(dataset, champion, need)

    def _load_rows(self) -> tuple[Champion, Dataset]:
        request = self._request
        if request.features is not None:
            self._on_step(Step("reading features", 0.0))
            dataset = load_thinned(request.features, self._folder, request.most_rows)
            champion = load_champion(request.artifacts, simulated=dataset.facts.simulated)
        else:
            tapes = recent_tapes(request.tape, request.days)
            champion = load_champion(request.artifacts, simulated=is_simulated(tapes))
            self._on_step(Step(f"replaying {len(tapes)} tapes", 0.0))
            self._features = replay_tapes(tapes, champion.artifact.metadata, self._folder, request.most_rows)
            dataset = load_thinned(self._features, self._folder, 2 * request.most_rows)
        champion.artifact.check_dataset(dataset)
        return champion, dataset

    def _decide_shadow(self, dataset: Dataset, champion: Champion) -> RetrainingResult | None:
        """Promote, keep or reject the challenger in shadow; None if a new challenger may be trained."""
        waiting = load_challenger(self._request.artifacts)
        if waiting is None:
            return None
        challenger, shadow = waiting
        self._on_step(Step("evaluating the challenger in shadow", 0.25))
        verdict = refuse_challenger(challenger) or evaluate_shadow(dataset, champion, challenger, shadow, self._now())
        reasons = (shadow.reason, verdict.reason)
        if verdict.is_not_worse:
            return self._promote(challenger, shadow.version, reasons, verdict)
        event: Event = "waits" if verdict.is_not_worse is None else "rejected"
        self._append(event, challenger.metadata, reasons, verdict.figures)
        if event == "waits":
            return self._result("waits", challenger.metadata, reasons, verdict=verdict, place=challenger.directory)
        remove_challenger(self._request.artifacts)
        if self._request.only_shadow:
            return self._result("rejected", challenger.metadata, reasons, verdict=verdict)
        return None

    def _challenge(self, dataset: Dataset, champion: Champion, need: RetrainingNeed) -> RetrainingResult:
        """Train a challenger and compare it; then reject it, put it in shadow, or promote it."""
        request = self._request
        report, challenger = self._train(dataset)
        version = self._track(report)
        self._on_step(Step("comparing champion and challenger", 0.95))
        rows = held_out_rows(dataset, champion.data_end_ns, challenger.metadata)
        verdict = refuse_challenger(challenger) or compare_challenger(dataset, rows, champion.artifact, challenger)
        reasons = (*need.reasons, verdict.reason)
        figures = need.figures() | verdict.figures
        if verdict.is_not_worse is False or (verdict.is_not_worse is None and request.shadow_hours == 0):
            self._append("rejected", challenger.metadata, reasons, figures, need.severity)
            self._keep_training_result(challenger.metadata, "kept", verdict.reason)
            return self._result("rejected", challenger.metadata, reasons, need=need, verdict=verdict)
        self._append("trained", challenger.metadata, reasons, figures, need.severity)
        if request.shadow_hours == 0:
            return self._promote(challenger, version, reasons, verdict, need=need)
        shadow = Shadow(
            since=format_time(self._now()), hours=request.shadow_hours, reason="; ".join(need.reasons), version=version
        )
        place = start_shadow(request.artifacts, challenger.directory, shadow)
        self._keep_training_result(challenger.metadata, "kept", verdict.reason)
        return self._result("waits", challenger.metadata, reasons, need=need, verdict=verdict, place=place)

    def _train(self, dataset: Dataset) -> tuple[TrainingReport, Artifact]:
        request = self._request
        training = TrainingRequest(
            features=self._features,
            models=request.models,
            artifacts=self._folder / "artifacts",
            folds=request.folds,
            search=request.search,
            seed=request.seed,
        )
        report = train_on(dataset, training, part(self._on_step, 0.4, 0.9))
        self._warnings += report.warnings
        return report, Artifact.load(training.artifacts / report.chosen)

    def _track(self, report: TrainingReport) -> str:
        """Track the training run; the challenger's MLflow version, or ""."""
        if not self._request.tracking.is_on:
            return ""
        tracking = track_run(report, self._request.tracking, part(self._on_step, 0.9, 0.95))
        self._warnings += tracking.warnings
        return "" if tracking.logged is None else tracking.logged.version

    def _promote(
        self,
        challenger: Artifact,
        version: str,
        reasons: tuple[str, ...],
        verdict: Verdict,
        *,
        need: RetrainingNeed | None = None,
    ) -> RetrainingResult:
        request = self._request
        place = promote(challenger.directory, "; ".join(reasons), request.trigger, artifacts=request.artifacts)
        if version and (warning := set_champion(request.tracking, version)):
            self._warnings.append(warning)
        self._keep_training_result(challenger.metadata, "promoted", verdict.reason)
        return self._result("promoted", challenger.metadata, reasons, need=need, verdict=verdict, place=place)

    def _result(
        self, outcome: RunOutcome, metadata: Metadata, reasons: tuple[str, ...], **details: Any
    ) -> RetrainingResult:
        return RetrainingResult(
            outcome=outcome,
            reasons=reasons,
            model=metadata.model,
            simulated=metadata.simulated,
            warnings=tuple(self._warnings),
            **details,
        )

    def _append(
        self, event: Event, metadata: Metadata, reasons: tuple[str, ...], figures: dict[str, Any], severity: str = ""
    ) -> None:
        entry = entry_about(
            metadata,
            time=format_time(self._now()),
            event=event,
            reason="; ".join(reasons),
            trigger=self._request.trigger,
            severity=severity,
            figures=figures,
        )
        append_entry(self._request.artifacts, entry)

    def _keep_training_result(self, metadata: Metadata, outcome: TrainingOutcome, reason: str) -> None:
        final = metadata.metrics.get("model_final") or metadata.metrics.get("model", {})
        figures = {name: final.get(name) for name in ("pr_auc", "brier", "precision", "recall", "base_rate")}
        result = TrainingResult(time=self._now(), model=metadata.model, outcome=outcome, reason=reason, **figures)
        self._keep_result(result)

    def _keep_result(self, result: DriftResult | TrainingResult) -> None:
        """Replaces the result for the metrics of the server; a folder that cannot be written is a warning."""
        try:
            write_result(result, self._request.results)
        except UsageError as error:
            self._warnings.append(str(error))


def _record_failure(request: RetrainingRequest, error: Exception, now_ns: int) -> None:
    """Append the failure to the history and, unless there was merely too little data, publish it for the metrics."""
    kind: Event = "checked" if isinstance(error, NotEnoughData) else "failed"
    reason = f"{type(error).__name__}: {error}"
    append_entry(
        request.artifacts, HistoryEntry(time=format_time(now_ns), event=kind, reason=reason, trigger=request.trigger)
    )
    if kind == "failed":
        with suppress(UsageError):  # the error of the run is the one to report
            write_result(TrainingResult(time=now_ns, model="", outcome="failed", reason=reason), request.results)


def recent_tapes(folder: Path, days: float) -> list[Path]:
    """The tapes of a folder that began within ``days`` before its newest one, and those whose name has no time.

    Raises:
        UsageError: the folder holds no tape.
    """
    if not folder.exists():
        raise UsageError(
            f"no recordings in {folder}: record with `volspike up`, or give a feature file with --features"
        )
    tapes = tapes_of(folder)
    starts = {tape: name.started for tape in tapes if (name := read_tape_name(tape)) is not None}
    oldest = max(starts.values(), default=0) - round(days * 86_400) * SECOND_NS
    return [tape for tape in tapes if starts.get(tape, oldest) >= oldest]


def is_simulated(tapes: list[Path]) -> bool:
    """Whether the newest tape is of a simulated market, by its first ticks."""
    report = TapeReport()
    for _ in read_ticks([tapes[-1]], report=report, keep_rejected=False):
        break
    return report.simulated


def replay_tapes(tapes: list[Path], like: Metadata, folder: Path, most_rows: int) -> Path:
    """Write a feature file of ``tapes`` to ``folder``, with the kind of rows and labels of the model ``like``.

    Raises:
        DataError: the tapes cannot be read, or are too short for a label.
    """
    raw, thin = folder / "replayed.parquet", folder / "features.parquet"
    gaps = ledgers_of(tapes).gaps
    build_features(tapes, raw, like.feature_set, Every(like.every), like.source_profile, gaps)
    label_file(raw, raw, like.spike_definition, horizon=like.horizon_s)
    thin_features(raw, thin, most_rows)
    raw.unlink()
    return thin


def thin_features(source: Path, out: Path, most_rows: int) -> int:
    """Copy the last row of each second and product; of more than ``most_rows``, every k-th second's. Returns k.

    Labels are computed before, from every second. Weeks of ticks then need no more memory than training uses.
    """
    with open_feature_file(source) as file:
        every = facts_of(source, file).every
        kept = sum(int(np.count_nonzero(mask)) for _, mask in _last_of_seconds(file, every, ["timestamp"], 1))
        step = max(1, ceil(kept / most_rows))
        with write_atomically(out) as part, pq.ParquetWriter(part, file.schema_arrow, **PARQUET) as writer:
            for table, mask in _last_of_seconds(file, every, file.schema_arrow.names, step):
                writer.write_table(table.filter(pa.array(mask)))
    return step


def _last_of_seconds(
    file: pq.ParquetFile, every: Every, columns: list[str], step: int
) -> Iterator[tuple[pa.Table, NDArray[np.bool_]]]:
    """Each batch with a mask of the rows to keep; a second that a batch cuts in two may be kept twice."""
    needed = list(dict.fromkeys([*columns, "timestamp", "product_id"]))
    for batch in file.iter_batches(row_group(file.schema_arrow), columns=needed):
        table = pa.Table.from_batches([batch])
        second = row_second(numbers(table, "timestamp").astype(np.int64), every)
        encoded = table["product_id"].combine_chunks()
        encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
        product = np.asarray(encoded.indices)
        mask = np.zeros(len(second), np.bool_)
        mask[last_of_each_second(second, product)] = True
        yield table, mask & (second % step == 0)


def load_thinned(path: Path, folder: Path, most_rows: int) -> Dataset:
    """The labelled rows of a feature file, thinned out if it has more than ``most_rows``.

    Raises:
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: none of its rows is warm and labelled.
    """
    with open_feature_file(path) as file:
        is_small = file.metadata.num_rows <= most_rows
    if is_small:
        return load_dataset(path)
    thin_features(path, folder / "thinned.parquet", most_rows)
    return load_dataset(folder / "thinned.parquet")
