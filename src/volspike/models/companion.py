"""The best baseline of a training run, kept beside each of its models, so that whoever judges the model anew can judge
both on the same rows: ``baseline.onnx`` and ``baseline.json`` in the artifact's folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import ArtifactCorrupt

GRAPH_FILE: Final = "baseline.onnx"
FACTS_FILE: Final = "baseline.json"


class CompanionFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The baseline's name, columns in order, and the threshold that was served of it, chosen as the model's was."""

    model: str
    features: tuple[str, ...]
    threshold: float
    accepts_missing: bool
    onnx_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Companion:
    """A baseline that scores rows."""

    facts: CompanionFacts
    onnx: bytes

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, number of features); NaN where it has none."""
        from volspike.models.scorer import Scorer  # noqa: PLC0415

        facts = self.facts
        return Scorer(self.onnx, width=len(facts.features), accepts_missing=facts.accepts_missing).probability(x)


def companion_files(onnx: bytes, facts: CompanionFacts) -> dict[str, bytes]:
    """File name → content; the hash is filled in here."""
    facts = msgspec.structs.replace(facts, onnx_sha256=hashlib.sha256(onnx).hexdigest())
    return {GRAPH_FILE: onnx, FACTS_FILE: msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"}


def companion_of(folder: Path) -> Companion | None:
    """The baseline in an artifact's folder; None where there is none.

    Raises:
        ArtifactCorrupt: it is not what was written.
    """
    graph, told = folder / GRAPH_FILE, folder / FACTS_FILE
    if not (graph.is_file() and told.is_file()):
        return None
    onnx = graph.read_bytes()
    try:
        facts = msgspec.json.decode(told.read_bytes(), type=CompanionFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{told}: {error}; train it anew with `volspike train`") from error
    if hashlib.sha256(onnx).hexdigest() != facts.onnx_sha256:
        raise ArtifactCorrupt(f"{graph}: its sha256 is not the one in {FACTS_FILE}; copy the folder again whole")
    return Companion(facts, onnx)
