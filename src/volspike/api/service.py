"""What the routes share: settings, metrics, and the predictor of the moment or the reason why there is none.

A model is replaced by one assignment: whoever asked before is answered by the old one to the end, its threshold and its
name included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

import volspike
from volspike.api.answers import Health, Version
from volspike.api.metrics import Metrics, ModelCollector, ResultsCollector
from volspike.api.predict import OK, UNPROCESSABLE, Predictor
from volspike.api.served_model import Load, Loaded, ModelFolder, Scorer, load_or_reason
from volspike.config import ServingSettings
from volspike.errors import VolspikeError
from volspike.models.choice import named_model, production_model

Adopt = Callable[[Scorer], None]
"""Takes a new model over into whatever else scores with it, or raises a VolspikeError and changes nothing."""

log = structlog.get_logger(__name__)


class Service:
    """Serves the model of a folder, and follows that folder.

    Args:
        settings: which folder, and what a client may do.
        load: makes a scorer of a path.
        served: a model that is served already, as by a live pipeline; its folder may not hold any yet.
        adopt: what else has to take each new model; where it refuses, the old one goes on here as well.
    """

    def __init__(
        self, settings: ServingSettings, load: Load, *, served: Scorer | None = None, adopt: Adopt | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.predictor: Predictor | None = None
        self.metrics.registry.register(ResultsCollector(settings.results))
        self.metrics.registry.register(
            ModelCollector(lambda: None if self.predictor is None else self.predictor.scorer)
        )
        self.companion: Predictor | None = None
        self.reason: str | None = "the server is starting"
        self.refused: str | None = None
        self.loaded_at: datetime | None = None
        self._load = load
        self._served = served
        self._adopt = adopt
        self._folder = ModelFolder(named_model(settings) or production_model(settings), load)

    def scorer(self) -> Scorer | None:
        """The model of the moment, if there is one."""
        return None if self.predictor is None else self.predictor.scorer

    def start(self) -> None:
        """Load the model, or keep the reason why it cannot be loaded; the server starts either way."""
        self.companion = self._companion()
        if self._served is not None:
            self._serve(self._served)
            return
        loaded = self._folder.look() or load_or_reason(self._folder.path, self._load)
        if loaded.scorer is None:
            self.reason = loaded.reason
            log.error("model_not_loaded", path=str(self._folder.path), reason=loaded.reason)
        else:
            self._serve(loaded.scorer)

    async def follow(self) -> None:
        """Look for another model as often as the settings say, until cancelled."""
        while self.settings.reload_s > 0.0:
            await asyncio.sleep(self.settings.reload_s)
            # in a thread: a folder may be on a network, and a graph takes a while to load
            loaded = await asyncio.to_thread(self._folder.look)
            if loaded is not None:
                self.take(loaded)

    def take(self, loaded: Loaded) -> None:
        """Serve what was found in the folder from the next request on, or keep the old and say why."""
        scorer, before = loaded.scorer, self.predictor
        if scorer is None:
            self._refuse(loaded.reason or "")
        elif before is None or scorer.metadata != before.scorer.metadata:
            try:
                if self._adopt is not None:
                    self._adopt(scorer)
            except VolspikeError as error:
                self._refuse(str(error))
            else:
                self._serve(scorer)
        else:
            self.refused = None  # the old one was put back

    def _serve(self, scorer: Scorer) -> None:
        before, self.predictor = self.predictor, Predictor(scorer, self.metrics, self.settings.max_rows)
        self.reason = self.refused = None
        self.loaded_at = datetime.now(UTC)
        self.metrics.model_loaded.set(1)
        if before is not None:
            self.metrics.count_swap("swapped")
        log.info(
            "model_loaded" if before is None else "model_swapped",
            path=str(scorer.directory),
            model_version=self.predictor.version,
            model_digest=scorer.metadata.onnx_sha256[:12],
            threshold=scorer.threshold,
            simulated=scorer.metadata.simulated,
            **({} if before is None else {"features_changed": before.scorer.features != scorer.features}),
        )

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.metrics.count_swap("refused")
        log.error("model_refused", path=str(self._folder.path), reason=reason)

    def _companion(self) -> Predictor | None:
        """The second model; that it cannot be had is logged and keeps nothing from being served."""
        if self.settings.companion is None:
            return None
        loaded = load_or_reason(self.settings.companion, self._load)
        if loaded.scorer is None:
            log.error("companion_not_loaded", path=str(self.settings.companion), reason=loaded.reason)
            return None
        return Predictor(loaded.scorer, self.metrics, self.settings.max_rows)

    def reply(self, predictor: Predictor, body: bytes) -> tuple[int, bytes]:
        """The answer to a ``/predict`` body: the companion's where it alone understands the features."""
        status, answer = predictor.reply(body)
        if status == UNPROCESSABLE and self.companion is not None:
            understood, its_answer = self.companion.reply(body)
            if understood == OK:
                return understood, its_answer
        return status, answer

    def health(self) -> Health:
        """How the service is now."""
        reason = self.reason or (
            self.refused and f"the newest model is refused, the one before it serves: {self.refused}"
        )
        return Health(
            status="healthy" if reason is None else "degraded",
            timestamp=datetime.now(UTC).isoformat(),
            model_loaded=self.predictor is not None,
            model_version=None if self.predictor is None else self.predictor.version,
            model_refused=self.refused,
            kafka_connected=None,
            reason=reason,
        )

    def version(self) -> Version:
        """What is running."""
        predictor = self.predictor
        scorer = None if predictor is None else predictor.scorer
        return Version(
            version=volspike.__version__,
            model=None if scorer is None else scorer.name,
            model_version=None if predictor is None else predictor.version,
            model_digest=None if scorer is None else scorer.metadata.onnx_sha256[:12],
            model_created=None if scorer is None else scorer.metadata.created,
            model_loaded_at=None if self.loaded_at is None else self.loaded_at.isoformat(),
            model_refused=self.refused,
            model_path=str(self._folder.path if scorer is None else scorer.directory),
            api_build_date=_installed_at(),
            feature_digest=None if scorer is None else scorer.metadata.feature_digest,
            features=[] if scorer is None else list(scorer.features),
            threshold=None if scorer is None else scorer.threshold,
            simulated=None if scorer is None else scorer.metadata.simulated,
        )


def _installed_at() -> str:
    """When the running code was written to this machine."""
    written = Path(volspike.__file__).stat().st_mtime
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")
