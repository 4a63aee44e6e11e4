"""Which model a live run would serve: whether it loads, when it was trained, whether it fits the source."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import ModelError
from volspike.live.scoring import LiveScorer
from volspike.live.sources import kinds_of
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.models.choice import model_to_serve

CHECK: Final = "model"
_RETRAIN: Final = "train another with `volspike train --promote`, or name one with --model or MODEL_PATH"


def look_at_model(wished: Path | None, production: Path, feed: FeedSettings) -> list[Finding]:
    """Loads what ``volspike up`` would load for a real market, as it would: hash, features, profile of the source."""
    path = model_to_serve(wished, production, simulated=False)
    facts: dict[str, Fact] = {"path": str(path)}
    try:
        artifact = Artifact.load(path)
        LiveScorer(artifact).admits(set(kinds_of(feed)))
    except ModelError as error:
        return [Finding(check=CHECK, severity=Severity.BAD, found=str(error), remedy=_RETRAIN, facts=facts)]
    known = artifact.metadata
    facts |= {
        "name": known.model,
        "digest": known.onnx_sha256[:12],
        "feature_digest": known.feature_digest,
        "created": known.created,
        "trained_until": known.data.end,
        "profile": known.profile,
        "simulated": known.simulated,
    }
    found = (
        f"{path}: {known.model} {known.onnx_sha256[:12]}, trained {_short(known.created)} "
        f"on data until {_short(known.data.end)}, fits features {known.feature_digest} and the {feed.protocol} feed"
    )
    if known.simulated:
        remedy = "train on a real market's tape before anybody relies on it"
        found += "; it learned from a SIMULATED market"
        return [Finding(check=CHECK, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    if path == DEFAULT_MODEL:
        remedy = "it works; once tapes of some days are there, `volspike train --promote` puts your own in its place"
        return [
            Finding(
                check=CHECK, severity=Severity.NOTE, found=f"{found} (the one that ships)", remedy=remedy, facts=facts
            )
        ]
    return [Finding(check=CHECK, severity=Severity.FINE, found=found, facts=facts)]


def _short(instant: str) -> str:
    """To the second, for people."""
    return f"{instant[:19]}Z" if instant else "an untold time"
