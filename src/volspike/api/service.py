"""The served model: loading, validation, hot replacement, health and version.

A model is replaced by one assignment: requests in flight are answered by the previous model to the end, with its
threshold and its name.

The model folder is polled. A file watcher would watch the very folder that a promotion renames away, and receives
nothing from a mounted volume; two ``stat`` calls a second cost microseconds and detect both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import structlog

import volspike
from volspike.api.metrics import ApiMetrics, ModelCollector, ResultsCollector
from volspike.api.predict import OK, UNPROCESSABLE, PredictHandler, nearest_refusal
from volspike.api.schema import BackgroundFault, Health, Refusal, SourceState, Version, encode
from volspike.background import BackgroundCollector, BackgroundTask, TaskList
from volspike.config import ServingSettings
from volspike.errors import ArtifactCorrupt, VolspikeError
from volspike.models import METADATA_FILE, ONNX_FILE, Artifact, Metadata
from volspike.models.choice import holds_model, named_model, origin_fault, production_model, shipped_model
from volspike.models.evidence import Limitations, model_limitations, texts

Load: TypeAlias = Callable[[Path], Artifact]
"""Loads the model in a folder, or raises a ModelError."""

Adopt: TypeAlias = Callable[[Artifact], None]
"""Passes a new model on to another user of it, or raises a VolspikeError and changes nothing."""

LimitationsOf: TypeAlias = Callable[[Metadata], Limitations]
"""The limitations of a model where it is used."""

FileIdentity: TypeAlias = tuple[tuple[int, int, int, int], ...]

TRIAL_VALUES: Final = (0.0, 1e-4, 1.0, 100.0)
"""Each trial row repeats one of these: zero, the magnitude of a return, of a ratio, and of a count."""

TOLERANCE: Final = 1e-6

log = structlog.get_logger(__name__)


class Service:
    """Serves the model of a folder and reloads it when the folder changes.

    Args:
        settings: which folder, and the limits per request.
        load: loads the model in a folder.
        served: a model that is already in use, as in a live pipeline; its folder may still be empty.
        adopt: receives each new model first; if it raises, the previous model stays in use here as well.
        state: the state of the live pipeline's source; None if there is no pipeline.
        background: other background tasks of the process, for ``/health`` and the metrics.
        limitations: those of a model where it is used, such as on a live market; by default those of the model alone.
        simulated: the kind of market that is served. A promoted model of a simulated market is not used on a real one,
            as at the start; None, without a market, uses every promoted model.
    """

    def __init__(
        self,
        settings: ServingSettings,
        load: Load,
        *,
        served: Artifact | None = None,
        adopt: Adopt | None = None,
        state: Callable[[], SourceState] | None = None,
        background: TaskList = tuple,
        limitations: LimitationsOf = model_limitations,
        simulated: bool | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = ApiMetrics()
        self.predictor: PredictHandler | None = None
        self.companion: PredictHandler | None = None
        self.reason: str | None = "the server is starting"
        self.refused: str | None = None
        self.loaded_at: datetime | None = None
        self._load = load
        self._served = served
        self._adopt = adopt
        self._state = state
        self._background = background
        self._following = BackgroundTask("model folder")
        self._limitations = limitations
        self._simulated = simulated
        self._shipped = shipped_model(simulated=bool(simulated))
        self._named = named_model(settings)
        self._folder = ModelFolder(self._named or production_model(settings), load)
        self.metrics.registry.register(ResultsCollector(settings.results))
        self.metrics.registry.register(ModelCollector(lambda: self.artifact))
        self.metrics.registry.register(BackgroundCollector(self._tasks))

    def _tasks(self) -> list[BackgroundTask]:
        return [self._following, *self._background()]

    @property
    def artifact(self) -> Artifact | None:
        """The served model; None if there is none."""
        return None if self.predictor is None else self.predictor.artifact

    def start(self) -> None:
        """Load the model, or keep the reason why it cannot be loaded; the server starts in both cases.

        Without a named and a promoted model the one that ships is served until a model is promoted.
        """
        self.companion = self._load_companion()
        if self._served is not None:
            self._serve(self._served)
            return
        path = self._folder.path
        if self._named is None and not holds_model(path):
            log.info("shipped_model_served", path=str(self._shipped), reason=f"no model was promoted to {path}")
            path = self._shipped
        loaded = self._folder.load_changed() or load_validated(path, self._load)
        if loaded.artifact is None:
            self.reason = loaded.reason
            log.error("model_not_loaded", path=str(path), reason=loaded.reason)
        else:
            self._serve(loaded.artifact)

    async def follow(self) -> None:
        """Check the folder for a new model every ``reload_s`` seconds until cancelled; an error does not end it."""
        if self.settings.reload_s > 0.0:
            await self._following.repeat(self._check_folder, self.settings.reload_s)

    async def _check_folder(self) -> None:
        # in a thread: the folder may be on a network drive, and a model takes a while to load
        loaded = await asyncio.to_thread(self._load_changed)
        if loaded is not None:
            self.replace(loaded)

    def _load_changed(self) -> LoadResult | None:
        """The model that was promoted since the last check; the shipped one if the promotion was taken back."""
        loaded = self._folder.load_changed()
        if loaded is None and self._named is None and self._folder.was_cleared():
            return load_validated(self._shipped, self._load)
        return loaded

    def replace(self, loaded: LoadResult) -> None:
        """Serve the loaded model from the next request on, or keep the previous one and record the reason."""
        artifact, before = loaded.artifact, self.artifact
        if artifact is None:
            self._refuse(loaded.reason or "")
        elif before is None or artifact.metadata != before.metadata:
            if fault := self._origin_fault(artifact.metadata):
                self._refuse(fault)
                return
            try:
                if self._adopt is not None:
                    self._adopt(artifact)
            except VolspikeError as error:
                self._refuse(str(error))
            else:
                self._serve(artifact)
        else:
            self.refused = None  # the served model was restored

    def _origin_fault(self, metadata: Metadata) -> str | None:
        """The reason not to use a promoted model on this market; None for one that is named explicitly."""
        if self._named is not None or self._simulated is None:
            return None
        return origin_fault(metadata, simulated=self._simulated)

    def _serve(self, artifact: Artifact) -> None:
        before, self.predictor = self.artifact, PredictHandler(artifact, self.metrics, self.settings.max_rows)
        self.reason = self.refused = None
        self.loaded_at = datetime.now(UTC)
        self.metrics.model_loaded.set(1)
        if before is not None:
            self.metrics.count_swap("swapped")
        log.info(
            "model_loaded" if before is None else "model_swapped",
            path=str(artifact.directory),
            model_version=self.predictor.version,
            model_digest=artifact.metadata.onnx_sha256[:12],
            threshold=artifact.threshold,
            simulated=artifact.metadata.simulated,
            **({} if before is None else {"features_changed": before.features != artifact.features}),
        )
        if limitations := texts(self._limitations(artifact.metadata)):
            log.warning("model_limitations", model_version=self.predictor.version, limitations=limitations)

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.metrics.count_swap("refused")
        log.error("model_refused", path=str(self._folder.path), reason=reason)

    def _load_companion(self) -> PredictHandler | None:
        """The second model; if it cannot be loaded the error is logged and the first is served alone."""
        if self.settings.companion is None:
            return None
        loaded = load_validated(self.settings.companion, self._load)
        if loaded.artifact is None:
            log.error("companion_not_loaded", path=str(self.settings.companion), reason=loaded.reason)
            return None
        return PredictHandler(loaded.artifact, self.metrics, self.settings.max_rows)

    def reply(self, predictor: PredictHandler, body: bytes) -> tuple[int, bytes]:
        """Status and response to a ``/predict`` body; the companion's if only it accepts the features.

        If neither does, the response refers to the one whose features are nearest to those in the body.
        """
        refusals = []
        for handler in (predictor, self.companion):
            if handler is None:
                continue
            answer = handler.reply(body)
            if not isinstance(answer, Refusal):
                return OK, answer
            refusals.append((handler, answer))
        return UNPROCESSABLE, encode(nearest_refusal(refusals))

    def health(self) -> Health:
        """The body of ``/health``."""
        faults = [
            BackgroundFault(task=task.name, error=error, faults=task.faults)
            for task in self._tasks()
            if (error := task.error) is not None
        ]
        reasons = [
            self.reason,
            self.refused and f"the newest model was rejected and the previous one is served: {self.refused}",
            *(f"background task {fault.task!r} failed: {fault.error}" for fault in faults),
        ]
        reason = "; ".join(filter(None, reasons)) or None
        source = None if self._state is None else self._state()
        return Health(
            status="healthy" if reason is None else "degraded",
            timestamp=datetime.now(UTC).isoformat(),
            model_loaded=self.predictor is not None,
            model_version=None if self.predictor is None else self.predictor.version,
            model_refused=self.refused,
            kafka_connected=None,
            background_faults=faults,
            mode=None if source is None else source.mode,
            simulated=None if source is None else source.simulated,
            source=source,
            reason=reason,
        )

    def version(self) -> Version:
        """The body of ``/version``."""
        predictor, artifact = self.predictor, self.artifact
        metadata = None if artifact is None else artifact.metadata
        return Version(
            version=volspike.__version__,
            model=None if artifact is None else artifact.name,
            model_version=None if predictor is None else predictor.version,
            model_digest=None if metadata is None else metadata.onnx_sha256[:12],
            model_created=None if metadata is None else metadata.created,
            model_loaded_at=None if self.loaded_at is None else self.loaded_at.isoformat(),
            model_refused=self.refused,
            model_path=str(self._folder.path if artifact is None else artifact.directory),
            api_build_date=_install_time(),
            feature_digest=None if metadata is None else metadata.feature_digest,
            features=[] if artifact is None else list(artifact.features),
            threshold=None if artifact is None else artifact.threshold,
            spike=None if metadata is None else str(metadata.spike_definition),
            spike_text=None if metadata is None else metadata.spike_definition.describe(),
            horizon_s=None if metadata is None else metadata.horizon_s,
            horizons=[] if artifact is None else list(artifact.horizons),
            simulated=None if metadata is None else metadata.simulated,
            threshold_name=None if metadata is None else metadata.served_threshold,
            split_method=None if metadata is None else metadata.split.method,
            products=[] if metadata is None else list(metadata.products),
            venues=[] if metadata is None else list(metadata.venues),
            companion_version=None if self.companion is None else self.companion.version,
            companion_limitations=[]
            if self.companion is None
            else texts(self._limitations(self.companion.artifact.metadata)),
            companion_features=[] if self.companion is None else list(self.companion.artifact.features),
            limitations=[] if metadata is None else texts(self._limitations(metadata)),
            mode=None if self._state is None else self._state().mode,
        )


def _install_time() -> str:
    """When the running code was written to this machine."""
    written = Path(volspike.__file__).stat().st_mtime
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A loaded model, or the reason why there is none; exactly one of them is None."""

    artifact: Artifact | None
    reason: str | None


def load_validated(path: Path, load: Load) -> LoadResult:
    """The validated model in ``path``, or the reason why it cannot be served."""
    try:
        artifact = load(path)
        validate(artifact)
    except (VolspikeError, OSError, ValueError) as error:  # ValueError: text that is not UTF-8, among others
        return LoadResult(None, " ".join(str(error).split()) or type(error).__name__)
    return LoadResult(artifact, None)


def validate(artifact: Artifact) -> None:
    """Score trial rows, as a batch and one by one. NaN is accepted: the values of a trial row are not a market's.

    Raises:
        ArtifactCorrupt: no row has a score, a score is not a probability, or batch and single scores differ.
    """
    rows = np.repeat(np.array(TRIAL_VALUES)[:, None], len(artifact.features), axis=1)
    try:
        batch = artifact.probability(rows)
        single = np.array([artifact.probability_of(row) for row in rows.tolist()])
    except Exception as error:  # ONNX Runtime's errors have no other common parent
        raise ArtifactCorrupt(
            f"{artifact.directory}: the model fails on trial rows ({error}); train it again with `volspike train`"
        ) from error
    scores = batch[~np.isnan(batch)]
    are_probabilities = len(scores) > 0 and bool(np.all((scores >= 0.0) & (scores <= 1.0)))
    if not (are_probabilities and np.allclose(batch, single, rtol=0.0, atol=TOLERANCE, equal_nan=True)):
        raise ArtifactCorrupt(
            f"{artifact.directory}: trial rows score {batch.tolist()} as a batch and {single.tolist()} one by one, "
            "expected equal probabilities; train it again with `volspike train`"
        )


class ModelFolder:
    """A folder that may hold a model, and the state of its files at the last check. Not thread-safe."""

    def __init__(self, path: Path, load: Load) -> None:
        self.path = path
        self._load = load
        self._seen: FileIdentity | None = None
        self._cleared = False

    def load_changed(self) -> LoadResult | None:
        """The model in the folder if its files changed since the last call; blocks while it reads.

        None if the files are missing, unchanged, or just being replaced.
        """
        seen = _file_identity(self.path)
        if seen is None or seen == self._seen:
            return None
        loaded = load_validated(self.path, self._load)
        if loaded.artifact is None and _file_identity(self.path) != seen:
            return None  # the files were replaced while they were read: the next check finds both
        self._seen, self._cleared = seen, False
        return loaded

    def was_cleared(self) -> bool:
        """Whether the folder was removed since the last call, as by the rollback of a first promotion.

        A folder that is just being replaced was not removed, nor one on a drive that is gone.
        """
        if self._cleared or self.path.exists():
            return False
        try:
            siblings = [each.name for each in self.path.parent.iterdir()]
        except OSError:
            return False
        is_moved = any(name.startswith(f".{self.path.name}.") and name.endswith(".old") for name in siblings)
        if not siblings or is_moved or self.path.exists():
            return False
        self._seen, self._cleared = None, True
        return True


def _file_identity(path: Path) -> FileIdentity | None:
    """Distinguishes versions of the model's two files without reading them; None if one is missing.

    The inode's change time moves with every write, rename and change of rights; a modification time can be copied.
    """
    try:
        folder = path if path.is_dir() else path.parent
        stats = [(folder / name).stat() for name in (METADATA_FILE, ONNX_FILE)]
    except OSError:
        return None
    return tuple((each.st_dev, each.st_ino, each.st_ctime_ns, each.st_size) for each in stats)
