"""The rows to learn from: of a feature file, or of the newest recordings, replayed and labelled; thinned out, so that

weeks of ticks take no more memory than a model learns from.

One retraining run: look, decide, train, compare, wait in shadow, promote. Whatever fails changes nothing.

Everything is written beside what is served and takes its place in one step at the very end; each run leaves a line in
the history, with its reason and its figures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import build_features, label_file, row_second
from volspike.datasets.dataset import numbers
from volspike.datasets.feature_file import PARQUET, facts_of, open_feature_file, replacing, row_group
from volspike.errors import NotEnoughData, UsageError
from volspike.features import Every
from volspike.lifecycle.challenger import (
    Champion,
    Shadow,
    Verdict,
    champion_for,
    duel,
    in_shadow,
    leave_shadow,
    put_in_shadow,
    unseen_rows,
    waiting,
)
from volspike.lifecycle.history import Event, HistoryEntry, append_entry
from volspike.lifecycle.need import Need, RetrainingRequest, need_for
from volspike.lifecycle.promotion import exclusive_access, promote
from volspike.market import SECOND_NS, Profile, format_time
from volspike.models import Artifact, Metadata
from volspike.monitoring.drift import drift_result
from volspike.monitoring.results import TrainingOutcome, TrainingResult, write_result
from volspike.tape import Ledger, TapeReport, read_ticks, tapes_of
from volspike.tape.names import read_tape_name
from volspike.training import TrainingReport, TrainingRequest
from volspike.training.mlflow import crown, track
from volspike.training.run import train_on


def recent_tapes(folder: Path, days: float) -> list[Path]:
    """The tapes of a folder that began in the ``days`` before its newest one; a tape of another name is taken too.

    Raises:
        UsageError: the folder holds no tape.
    """
    if not folder.exists():
        raise UsageError(f"no recordings in {folder}: record with `volspike up`, or name a file with --features")
    tapes = tapes_of(folder)
    begun = {tape: name.started for tape in tapes if (name := read_tape_name(tape)) is not None}
    oldest = max(begun.values(), default=0) - round(days * 86_400) * SECOND_NS
    return [tape for tape in tapes if begun.get(tape, oldest) >= oldest]


def is_simulated(tapes: list[Path]) -> bool:
    """Whether the newest tape is of a simulated market, by its first ticks."""
    report = TapeReport()
    for _ in read_ticks([tapes[-1]], report=report, set_aside=False):
        break
    return report.simulated


def replayed(tapes: list[Path], like: Metadata, folder: Path, most_rows: int) -> Path:
    """A labelled feature file of ``tapes`` in ``folder``, of the kind of rows that a model understands.

    Raises:
        DataError: the tapes cannot be read, or are too short for a label.
    """
    raw, thin = folder / "replayed.parquet", folder / "features.parquet"
    gaps = [gap for place in sorted({tape.parent for tape in tapes}) for gap in Ledger.read(place)]
    build_features(tapes, raw, like.feature_set, Every(like.every), Profile(like.profile), gaps)
    label_file(raw, raw)
    thinned(raw, thin, most_rows)
    raw.unlink()
    return thin


def thinned(source: Path, out: Path, most_rows: int) -> int:
    """Copies the last row of each second and product, of every k-th second where there are more than ``most_rows``.

    Labels were made before, from every second. Returns k.
    """
    with open_feature_file(source) as file:
        every = facts_of(source, file).every
        kept = sum(int(np.count_nonzero(mask)) for _, mask in _last_of_seconds(file, every, ["timestamp"], 1))
        step = max(1, ceil(kept / most_rows))
        with replacing(out) as part, pq.ParquetWriter(part, file.schema_arrow, **PARQUET) as writer:
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
        order = np.lexsort((np.arange(len(second)), second, product))
        is_last = np.append((np.diff(second[order]) != 0) | (np.diff(product[order]) != 0), True)
        mask = np.zeros(len(second), np.bool_)
        mask[order[is_last]] = True
        yield table, mask & (second % step == 0)


def rows_of(path: Path, folder: Path, most_rows: int) -> Dataset:
    """The labelled rows of a feature file, thinned out where there are too many.

    Raises:
        UnreadableFile: no feature file, or one without labels.
        NotEnoughData: none of its rows is warm and labelled.
    """
    with open_feature_file(path) as file:
        is_small = file.metadata.num_rows <= most_rows
    if is_small:
        return load_dataset(path)
    thinned(path, folder / "thinned.parquet", most_rows)
    return load_dataset(folder / "thinned.parquet")


OnStep = Callable[[str], None]
Ended = Literal["nobody_waits", "not_needed", "waits", "rejected", "promoted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """How a run ended and why; ``need`` is None where a waiting challenger settled it, ``verdict`` where nobody was
    compared. ``place`` is where the model stands that is served, or waits."""

    ended: Ended
    reasons: tuple[str, ...]
    model: str
    simulated: bool
    need: Need | None = None
    verdict: Verdict | None = None
    place: Path | None = None
    warnings: tuple[str, ...] = ()


def retrain(request: RetrainingRequest, on_step: OnStep, now: Callable[[], int] = time.time_ns) -> Retrained:
    """Runs once, alone among the artifacts. ``now`` tells ns UTC.

    Raises:
        UsageError: something asked for that does not exist, or another run is at it.
        DataError: rows that cannot be read, or too few to learn from.
        ModelError: what is in production cannot be used on such rows.
    """
    request.check()
    with exclusive_access(request.artifacts, "retraining"):
        try:
            with tempfile.TemporaryDirectory(prefix=".retraining.", dir=request.artifacts) as folder:
                return _Run(request, Path(folder), on_step, now).end()
        except Exception as error:  # the edge of a process that nobody watches: it is written down and raised again
            _tell_failure(request, error, now())
            raise


class _Run:
    """One run, whose files lie in ``folder`` until something of them is to stay."""

    def __init__(self, request: RetrainingRequest, folder: Path, on_step: OnStep, now: Callable[[], int]) -> None:
        self._request, self._folder, self._on_step, self._now = request, folder, on_step, now
        self._warnings: list[str] = []
        self._features = request.features or folder

    def end(self) -> Retrained:
        """Goes the whole way, as far as it leads."""
        if self._request.only_shadow and waiting(self._request.artifacts) is None:
            return Retrained(ended="nobody_waits", reasons=(), model="", simulated=False)
        champion, dataset = self._rows()
        settled = self._settle(dataset, champion)
        if settled is not None:
            return settled
        self._on_step("looking for drift")
        need = need_for(self._request, dataset, champion, self._now())
        if need.drift is not None:
            write_result(drift_result(need.drift, self._now()), self._request.results)
        if self._request.if_needed and not need.is_needed:
            self._remember("checked", champion.artifact.metadata, need.reasons, need.figures(), need.severity)
            return self._ended("not_needed", champion.artifact.metadata, need.reasons, need=need)
        return self._challenge(dataset, champion, need)

    def _rows(self) -> tuple[Champion, Dataset]:
        request = self._request
        if request.features is not None:
            self._on_step("reading features")
            dataset = rows_of(request.features, self._folder, request.most_rows)
            champion = champion_for(request.artifacts, simulated=dataset.facts.simulated)
        else:
            tapes = recent_tapes(request.tape, request.days)
            champion = champion_for(request.artifacts, simulated=is_simulated(tapes))
            self._on_step(f"replaying {len(tapes)} tapes")
            path = replayed(tapes, champion.artifact.metadata, self._folder, request.most_rows)
            self._features = path
            dataset = rows_of(path, self._folder, 2 * request.most_rows)
        facts = dataset.facts
        champion.artifact.expects(facts.digest, str(facts.every), str(facts.profile))
        return champion, dataset

    def _settle(self, dataset: Dataset, champion: Champion) -> Retrained | None:
        """What becomes of a challenger that waits; None where none does, or it has lost and another may be tried."""
        waits = waiting(self._request.artifacts)
        if waits is None:
            return None
        challenger, shadow = waits
        self._on_step("a challenger in shadow")
        verdict = in_shadow(dataset, champion, challenger, shadow, self._now())
        reasons = (shadow.reason, verdict.reason)
        if verdict.is_not_worse:
            return self._serve(challenger, shadow.version, reasons, verdict)
        event: Event = "waits" if verdict.is_not_worse is None else "rejected"
        self._remember(event, challenger.metadata, reasons, verdict.figures)
        if event == "waits":
            return self._ended("waits", challenger.metadata, reasons, verdict=verdict, place=challenger.directory)
        leave_shadow(self._request.artifacts)
        if self._request.only_shadow:
            return self._ended("rejected", challenger.metadata, reasons, verdict=verdict)
        return None

    def _challenge(self, dataset: Dataset, champion: Champion, need: Need) -> Retrained:
        report, challenger = self._train(dataset)
        version = self._track(report)
        self._on_step("champion and challenger on the newest block")
        rows = unseen_rows(dataset, champion.seen_until, challenger.metadata)
        verdict = duel(dataset, rows, champion.artifact, challenger)
        reasons = (*need.reasons, verdict.reason)
        figures = need.figures() | verdict.figures
        if verdict.is_not_worse is False or (verdict.is_not_worse is None and self._request.shadow_hours == 0):
            self._remember("rejected", challenger.metadata, reasons, figures, need.severity)
            self._result(challenger.metadata, "kept", verdict.reason)
            return self._ended("rejected", challenger.metadata, reasons, need=need, verdict=verdict)
        if self._request.shadow_hours > 0:
            shadow = Shadow(
                since=format_time(self._now()),
                hours=self._request.shadow_hours,
                reason="; ".join(need.reasons),
                version=version,
            )
            place = put_in_shadow(self._request.artifacts, challenger.directory, shadow)
            self._remember("trained", challenger.metadata, reasons, figures, need.severity)
            self._result(challenger.metadata, "kept", verdict.reason)
            return self._ended("waits", challenger.metadata, reasons, need=need, verdict=verdict, place=place)
        self._remember("trained", challenger.metadata, reasons, figures, need.severity)
        return self._serve(challenger, version, reasons, verdict, need=need)

    def _train(self, dataset: Dataset) -> tuple[TrainingReport, Artifact]:
        request = self._request
        asked = TrainingRequest(
            features=self._features,
            models=request.models,
            artifacts=self._folder / "artifacts",
            folds=request.folds,
            search=request.search,
            seed=request.seed,
        )
        report = train_on(dataset, asked, self._on_step)
        self._warnings += report.warnings
        return report, Artifact.load(asked.artifacts / report.chosen)

    def _track(self, report: TrainingReport) -> str:
        """The version of the challenger in the tracker; "" where nothing is tracked."""
        if not self._request.tracking.is_on:
            return ""
        tracking = track(report, self._request.tracking, self._on_step)
        self._warnings += tracking.warnings
        return "" if tracking.logged is None else tracking.logged.version

    def _serve(
        self,
        challenger: Artifact,
        version: str,
        reasons: tuple[str, ...],
        verdict: Verdict,
        *,
        need: Need | None = None,
    ) -> Retrained:
        request = self._request
        place = promote(challenger.directory, "; ".join(reasons), request.trigger, artifacts=request.artifacts)
        if version and (fault := crown(request.tracking, version)):
            self._warnings.append(fault)
        self._result(challenger.metadata, "promoted", verdict.reason)
        return self._ended("promoted", challenger.metadata, reasons, need=need, verdict=verdict, place=place)

    def _ended(self, ended: Ended, metadata: Metadata, reasons: tuple[str, ...], **told: Any) -> Retrained:
        return Retrained(
            ended=ended,
            reasons=reasons,
            model=metadata.model,
            simulated=metadata.simulated,
            warnings=tuple(self._warnings),
            **told,
        )

    def _remember(
        self, event: Event, metadata: Metadata, reasons: tuple[str, ...], figures: dict[str, Any], severity: str = ""
    ) -> None:
        entry = HistoryEntry(
            time=format_time(self._now()),
            event=event,
            reason="; ".join(reasons),
            trigger=self._request.trigger,
            model=metadata.model,
            digest=metadata.onnx_sha256[:12],
            severity=severity,
            data_start=metadata.data.start,
            data_end=metadata.data.end,
            figures=figures,
        )
        append_entry(self._request.artifacts, entry)

    def _result(self, metadata: Metadata, outcome: TrainingOutcome, reason: str) -> None:
        final = metadata.metrics.get("model_final") or metadata.metrics.get("model", {})
        figures = {name: final.get(name) for name in ("pr_auc", "brier", "precision", "recall", "base_rate")}
        result = TrainingResult(time=self._now(), model=metadata.model, outcome=outcome, reason=reason, **figures)
        write_result(result, self._request.results)


def _tell_failure(request: RetrainingRequest, error: Exception, now_ns: int) -> None:
    """A line in the history, and the result that is watched; too little data yet is no failure."""
    kind: Event = "checked" if isinstance(error, NotEnoughData) else "failed"
    reason = f"{type(error).__name__}: {error}"
    append_entry(
        request.artifacts, HistoryEntry(time=format_time(now_ns), event=kind, reason=reason, trigger=request.trigger)
    )
    if kind == "failed":
        write_result(TrainingResult(time=now_ns, model="", outcome="failed", reason=reason), request.results)
