"""One retraining run: look, decide, train, compare, wait in shadow, promote. Whatever fails changes nothing.

Everything is written beside what is served and takes its place in one step at the very end; each run leaves a line in
the history, with its reason and its figures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
from volspike.market import instant
from volspike.models import Artifact, Metadata
from volspike.models.history import Event, HistoryEntry, remember
from volspike.models.results import Outcome, TrainingResult, keep_result
from volspike.monitoring.drift_record import drift_result
from volspike.retraining.champion import Champion, champion_for
from volspike.retraining.duel import Verdict, duel, unseen_rows
from volspike.retraining.need import Need, need_for
from volspike.retraining.request import RetrainingRequest
from volspike.retraining.rows import is_simulated, recent_tapes, replayed, rows_of
from volspike.retraining.shadow import Shadow, in_shadow, leave_shadow, put_in_shadow, waiting
from volspike.training import TrainingReport, TrainingRequest
from volspike.training.mlflow import crown, track
from volspike.training.promotion import alone, promote
from volspike.training.run import train_on

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
    with alone(request.artifacts, "retraining"):
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
            keep_result(drift_result(need.drift, self._now()), self._request.results)
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
                since=instant(self._now()),
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
            time=instant(self._now()),
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
        remember(self._request.artifacts, entry)

    def _result(self, metadata: Metadata, outcome: Outcome, reason: str) -> None:
        final = metadata.metrics.get("model_final") or metadata.metrics.get("model", {})
        figures = {name: final.get(name) for name in ("pr_auc", "brier", "precision", "recall", "base_rate")}
        result = TrainingResult(time=self._now(), model=metadata.model, outcome=outcome, reason=reason, **figures)
        keep_result(result, self._request.results)


def _tell_failure(request: RetrainingRequest, error: Exception, now_ns: int) -> None:
    """A line in the history, and the result that is watched; too little data yet is no failure."""
    kind: Event = "checked" if isinstance(error, NotEnoughData) else "failed"
    reason = f"{type(error).__name__}: {error}"
    remember(request.artifacts, HistoryEntry(time=instant(now_ns), event=kind, reason=reason, trigger=request.trigger))
    if kind == "failed":
        keep_result(TrainingResult(time=now_ns, model="", outcome="failed", reason=reason), request.results)
