"""Loading a model to serve: a scorer that was tried, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volspike.errors import VolspikeError
from volspike.serving.scorer import Load, Scorer
from volspike.serving.trial import prove


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a server has to serve: a scorer, or the reason why there is none; exactly one of them."""

    scorer: Scorer | None
    reason: str | None


def load_or_reason(path: Path, load: Load) -> Loaded:
    """The scorer in ``path``, tried, or why it cannot be had: a server without a model still answers, and says so."""
    try:
        scorer = load(path)
        prove(scorer)
    except (VolspikeError, OSError, ValueError) as error:  # ValueError: text that is not UTF-8, among others
        return Loaded(None, " ".join(str(error).split()) or type(error).__name__)
    return Loaded(scorer, None)
