"""A model that is put into the served folder: taken over when it is sound, refused when it is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.api.conftest import FakeFacts, FakeScorer

from volspike.api.served_model import Loaded, ModelFolder, Scorer, load_artifact, prove
from volspike.api.service import Service
from volspike.config import ServingSettings
from volspike.errors import ArtifactCorrupt, SchemaMismatch
from volspike.lifecycle.promotion import promote
from volspike.models import DEFAULT_MODEL, METADATA_FILE, ONNX_FILE, TEN_MODEL, Artifact

OTHER = FakeScorer(threshold=0.25, metadata=FakeFacts(onnx_sha256="cd" * 32))
ROW = json.dumps({"features": {"spread_mean_60s": 0.3, "log_return_60s": -1.0, "trade_intensity_60s": 7}}).encode()


def service(adopt: Callable[[Scorer], None] | None = None) -> Service:
    """A service that serves the fake scorer."""
    made = Service(ServingSettings(model=Path("nowhere")), lambda _: FakeScorer(), adopt=adopt)
    made.start()
    return made


def swaps(made: Service) -> tuple[float, ...]:
    """How many models were swapped in, and how many refused."""
    told = [
        made.metrics.registry.get_sample_value("model_swaps_total", {"outcome": it}) for it in ("swapped", "refused")
    ]
    return told[0] or 0.0, told[1] or 0.0


def test_a_new_model_answers_from_the_next_request_on() -> None:
    """Who asked before is answered by the old model, threshold included, whenever its answer is made."""
    made = service()
    before = made.predictor
    assert before is not None
    with capture_logs() as logged:
        made.take(Loaded(OTHER, None))
    after = made.predictor
    assert after is not None
    old, new = (json.loads(made.reply(each, ROW)[1]) for each in (before, after))
    assert (old["threshold"], old["prediction"]) == (0.5, 0)
    assert (new["threshold"], new["prediction"]) == (0.25, 1)
    assert made.version().model_digest == "cdcdcdcdcdcd"
    assert swaps(made) == (1.0, 0.0)
    assert [(event["event"], event["features_changed"]) for event in logged] == [("model_swapped", False)]


def test_a_bad_model_leaves_the_old_one() -> None:
    """The reason stands in the log, in health and in the version until a sound one comes; answers go on."""
    made = service()
    with capture_logs() as logged:
        made.take(Loaded(None, "sha256 is wrong"))
    health = made.health()
    assert (health.status, health.model_loaded, health.model_refused) == ("degraded", True, "sha256 is wrong")
    assert "sha256 is wrong" in (health.reason or "")
    assert made.version().model_refused == "sha256 is wrong"
    assert [(event["event"], event["reason"]) for event in logged] == [("model_refused", "sha256 is wrong")]
    assert swaps(made) == (0.0, 1.0)
    made.take(Loaded(OTHER, None))
    assert (made.health().status, made.health().model_refused) == ("healthy", None)


def test_the_same_model_written_again_is_no_swap() -> None:
    """The old one put back after a bad one ends the complaint, and nothing else."""
    made = service()
    made.take(Loaded(None, "half a file"))
    before = made.predictor
    made.take(Loaded(FakeScorer(), None))
    assert made.predictor is before
    assert made.health().status == "healthy"
    assert swaps(made) == (0.0, 1.0)


def test_what_the_live_pipeline_refuses_is_not_served_either() -> None:
    """Both score with one model: where one of them cannot take it, the old one goes on in both."""

    def refuse(scorer: Scorer) -> None:
        raise SchemaMismatch("model x expects feature digest 7c1e, was 9a40")

    made = service(refuse)
    before = made.predictor
    made.take(Loaded(OTHER, None))
    assert made.predictor is before
    assert "7c1e" in (made.health().model_refused or "")


@pytest.mark.parametrize(
    "row",
    [lambda row: 1.5, lambda row: float("nan"), lambda row: 0.1 * len(row) + row[0] / 1e3, lambda row: 1 / 0],
    ids=["no probability", "nothing", "another alone", "a fault"],
)
def test_a_trial_finds_what_a_hash_does_not(row: Callable[[Any], float]) -> None:
    """A model that tells no probabilities, no two alike, or fails, is not served."""

    class Odd(FakeScorer):
        def probability_of(self, values: Any) -> float:
            return row(values)

    with pytest.raises(ArtifactCorrupt, match="trial"):
        prove(Odd())
    prove(FakeScorer())


@pytest.mark.parametrize("model", [DEFAULT_MODEL, TEN_MODEL])
def test_models_that_ship_pass_the_trial(model: Path) -> None:
    """What works is not refused."""
    prove(Artifact.load(model))


def test_a_folder_is_read_when_it_changes(tmp_path: Path) -> None:
    """Absent, written, promoted over, spoiled, mended: each is told once, and silence means nothing new."""
    folder = ModelFolder(tmp_path / "production", load_artifact)
    assert folder.look() is None
    shutil.copytree(TEN_MODEL, tmp_path / "ten")
    promote(tmp_path / "ten")
    first = folder.look()
    assert first is not None
    assert first.scorer is not None
    assert first.scorer.name == "logistic"
    assert folder.look() is None
    shutil.copytree(DEFAULT_MODEL, tmp_path / "har")
    promote(tmp_path / "har")
    second = folder.look()
    assert second is not None
    assert second.scorer is not None
    assert second.scorer.name == "har"
    assert folder.look() is None
    (tmp_path / "production" / ONNX_FILE).write_bytes(b"half")
    spoiled = folder.look()
    assert spoiled is not None
    assert spoiled.scorer is None
    assert "sha256" in (spoiled.reason or "")
    assert folder.look() is None
    shutil.copy(DEFAULT_MODEL / ONNX_FILE, tmp_path / "production" / ONNX_FILE)
    mended = folder.look()
    assert mended is not None
    assert mended.scorer is not None


def test_a_folder_in_the_middle_of_a_change_is_looked_at_again(tmp_path: Path) -> None:
    """A model that cannot be loaded because another takes its place meanwhile is no bad model."""
    shutil.copytree(TEN_MODEL, tmp_path / "production")

    def meanwhile(path: Path) -> Scorer:
        loads.pop()
        (path / METADATA_FILE).write_bytes((path / METADATA_FILE).read_bytes() + b"\n")
        raise ArtifactCorrupt("one file of the old, one of the new")

    loads = [load_artifact, meanwhile]

    def load(path: Path) -> Scorer:
        return loads[-1](path)

    folder = ModelFolder(tmp_path / "production", load)
    assert folder.look() is None
    found = folder.look()
    assert found is not None
    assert found.scorer is not None


def test_a_server_without_a_model_takes_the_first_that_comes() -> None:
    """What was not there at the start is served as soon as it is."""

    def load(path: Path) -> Scorer:
        raise ArtifactCorrupt("nothing yet")

    made = Service(ServingSettings(model=Path("nowhere")), load)
    made.start()
    assert made.health().model_loaded is False
    made.take(Loaded(replace(OTHER), None))
    assert (made.health().status, made.version().threshold) == ("healthy", 0.25)
