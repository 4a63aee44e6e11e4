"""Promotion and rollback; after any failure the same model is served as before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from tests.lifecycle.artifacts import artifact
from tests.lifecycle.conftest import until
from volspike.datasets import Dataset
from volspike.errors import ArtifactMissing, ModelError, UsageError
from volspike.lifecycle.challenger import load_challenger
from volspike.lifecycle.promotion import (
    HISTORY_FILE,
    KEPT,
    HistoryEntry,
    append_entry,
    exclusive_access,
    find_model,
    list_models,
    load_production,
    promote,
    promote_chosen,
    read_history,
    read_promotion,
    rollback,
)
from volspike.models import DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, Artifact
from volspike.models.choice import model_to_serve
from volspike.training.request import TrainingRequest
from volspike.training.run import train_on


def served(artifacts: Path) -> tuple[str, str]:
    """Name and creation time of the model in production."""
    metadata = Artifact.load(artifacts / "production").metadata
    return metadata.model, metadata.created


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with two artifacts, ``relative_trees`` and ``ten``."""
    artifact(tmp_path / "relative_trees", created="2026-01-01T00:00:00Z")
    artifact(tmp_path / "ten", TEN_MODEL, created="2026-01-02T00:00:00Z", simulated=False)
    return tmp_path


def test_rollback_steps_back_one_model_at_a_time(shelf: Path) -> None:
    """Each rollback serves the previous model, at last the shipped one; then nothing is promoted."""
    promote(shelf / "relative_trees", "first")
    promote(shelf / "ten", "second")
    assert served(shelf)[0] == "logistic"
    rollback(shelf)
    assert served(shelf) == ("relative_trees", "2026-01-01T00:00:00Z")
    rollback(shelf)
    assert load_production(shelf) is None
    assert model_to_serve(None, shelf / "production", simulated=False) == DEFAULT_MODEL
    with pytest.raises(ArtifactMissing, match="roll back from"):
        rollback(shelf)
    events = [(entry.event, entry.model, entry.reason) for entry in read_history(shelf)]
    assert events == [
        ("promoted", "relative_trees", "first"),
        ("promoted", "logistic", "second"),
        ("rolled_back", "relative_trees", "no reason given"),
        ("rolled_back", "shipped", "no reason given"),
    ]


@pytest.mark.parametrize("simulated", [True, False])
def test_rollback_of_the_first_promotion_leaves_nothing_promoted(shelf: Path, simulated: bool) -> None:
    """No shipped model becomes a promoted one; the replaced model is kept, and can be promoted again."""
    artifact(shelf / "made_up", simulated=simulated)
    promote(shelf / "made_up")
    rollback(shelf, "a try")
    assert not (shelf / "production").exists()
    assert hidden(shelf) == []
    for kind, shipped in ((True, SIMULATED_MODEL), (False, DEFAULT_MODEL)):
        assert model_to_serve(None, shelf / "production", simulated=kind) == shipped
    last = read_history(shelf)[-1]
    assert (last.event, last.model, last.digest, last.reason) == ("rolled_back", "shipped", "", "a try")
    promote(shelf / "retired" / last.previous)
    assert load_production(shelf) is not None
    assert read_history(shelf)[-1].previous == "shipped"


def test_a_copy_of_the_shipped_model_of_an_earlier_version_stays_usable(shelf: Path) -> None:
    """Earlier versions put a copy in production; it is served, not rolled back, and replaced by the next promotion."""
    shutil.copytree(SIMULATED_MODEL, shelf / "production")
    with pytest.raises(UsageError, match="first model"):
        rollback(shelf)
    promote(shelf / "relative_trees")
    rollback(shelf)
    assert served(shelf)[1] == Artifact.load(SIMULATED_MODEL).metadata.created


def test_production_that_cannot_be_removed_is_still_served(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed removal changes neither the served model nor the history."""
    promote(shelf / "relative_trees")

    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "production":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UsageError, match="cannot be removed: Permission denied"):
        rollback(shelf)
    assert served(shelf)[0] == "relative_trees"
    assert [entry.event for entry in read_history(shelf)] == ["promoted"]


def test_retired_model_is_promoted_by_name(shelf: Path) -> None:
    """A model replaced by a rollback is kept, and found by its folder name or the start of its digest."""
    promote(shelf / "relative_trees")
    promote(shelf / "ten")
    rollback(shelf)
    kept = next(model for model in list_models(shelf) if model.name.startswith("retired/logistic"))
    assert promote(find_model(shelf, kept.folder.name), "after all") == shelf / "production"
    assert served(shelf)[0] == "logistic"
    assert find_model(shelf, kept.digest[:8])
    with pytest.raises(ArtifactMissing, match="models list"):
        find_model(shelf, "absent")


def test_rollback_needs_a_model_in_production(shelf: Path) -> None:
    """Without a promotion there is nothing to roll back from."""
    with pytest.raises(ArtifactMissing, match="roll back from"):
        rollback(shelf)


def test_damaged_model_is_not_promoted(shelf: Path) -> None:
    """An artifact that does not load changes neither production nor the history."""
    promote(shelf / "relative_trees")
    (shelf / "ten" / "model.onnx").write_bytes(b"half")
    with pytest.raises(ModelError):
        promote(shelf / "ten")
    assert served(shelf)[0] == "relative_trees"
    assert len(read_history(shelf)) == 1


@pytest.mark.parametrize("step", ["_retire", "_read_files", "replace_folder"])
def test_failure_at_any_step_changes_nothing(shelf: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while retiring, reading or replacing changes neither the served model nor the history."""
    promote(shelf / "relative_trees")

    def fail(*_: object, **__: object) -> None:
        raise UsageError("no space left on device")

    monkeypatch.setattr(f"volspike.lifecycle.promotion.{step}", fail)
    with pytest.raises(UsageError, match="no space"):
        promote(shelf / "ten")
    assert served(shelf)[0] == "relative_trees"
    assert [entry.event for entry in read_history(shelf)] == ["promoted"]


def hidden(artifacts: Path) -> list[str]:
    """The temporary folders in the artifacts folder and among the previous models."""
    return [path.name for place in (artifacts, artifacts / "retired") for path in place.glob(".*") if path.is_dir()]


KILLED = """
import os, sys, time
from pathlib import Path
from volspike.models.artifact import replace_folder

def check(folder):
    print("written", flush=True)
    time.sleep(600)

replace_folder(Path(sys.argv[1]), {"metadata.json": b"{}"}, mark="metadata.json", check=check)
"""


def test_killed_replacement_is_removed_and_a_running_one_is_not(shelf: Path) -> None:
    """The next promotion deletes the temporary folder of a process that was killed, but not that of a running one."""
    command = [sys.executable, "-c", KILLED, str(shelf / "other")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        promote(shelf / "relative_trees")
        (running,) = hidden(shelf)
        assert running.startswith(".other.")
        process.kill()
    promote(shelf / "ten")
    assert hidden(shelf) == []
    assert served(shelf)[0] == "logistic"


def test_killed_promotion_keeps_the_served_model(shelf: Path) -> None:
    """A model that a killed run had renamed away is in production again, and can be rolled back to."""
    promote(shelf / "relative_trees")
    (shelf / "production").rename(shelf / ".production.0123abcd.old")
    (shelf / ".production.0123abcd").mkdir()
    promote(shelf / "ten")
    assert hidden(shelf) == []
    assert rollback(shelf) == shelf / "production"
    assert served(shelf)[0] == "relative_trees"


def test_simulated_model_does_not_replace_a_real_one(shelf: Path) -> None:
    """A model of a simulated market never replaces one of a real market; the reverse is allowed."""
    artifact(shelf / "made_up", simulated=True)
    promote(shelf / "made_up")
    promote(shelf / "relative_trees")
    with pytest.raises(UsageError, match="simulated market"):
        promote(shelf / "made_up")
    assert served(shelf)[0] == "relative_trees"


def test_model_without_evidence_is_promoted_by_force_only(shelf: Path) -> None:
    """A stratified split and a degenerate threshold prevent a promotion; the history states them if it is forced."""
    shipped = Artifact.load(TEN_MODEL).metadata
    artifact(shelf / "random", TEN_MODEL, split=structs.replace(shipped.split, method="stratified"))
    artifact(shelf / "loud", TEN_MODEL, metrics={"model": {"rows": 100, "tp": 5, "fp": 85, "fn": 0}})
    for name, reason in (("random", "NO EVIDENCE: stratified split"), ("loud", "in alarm on 90% of 100 test rows")):
        with pytest.raises(UsageError, match=f"{name} is not promoted: .*{reason}.*promote {name} --force"):
            promote(shelf / name)
        assert load_production(shelf) is None
    promote(shelf / "random", "for a demonstration", force=True)
    assert served(shelf)[0] == "logistic"
    (entry,) = read_history(shelf)
    assert entry.reason.startswith("for a demonstration (forced; NO EVIDENCE")


def test_model_with_few_events_is_promoted(shelf: Path) -> None:
    """Limitations that do not block need no force."""
    assert promote(shelf / "ten") == shelf / "production"


def test_promoted_challenger_leaves_shadow(shelf: Path) -> None:
    """Promoting the challenger by hand removes it from shadow."""
    artifact(shelf / "challenger")
    (shelf / "challenger" / "shadow.json").write_text("{}")
    promote(find_model(shelf, "challenger"))
    assert not (shelf / "challenger").exists()
    assert not (shelf / "production" / "shadow.json").exists()


def test_concurrent_promotion_is_refused(shelf: Path) -> None:
    """The second of two runs gets an error and changes nothing."""
    with exclusive_access(shelf), pytest.raises(UsageError, match="another run"):
        promote(shelf / "relative_trees")
    assert load_production(shelf) is None


def test_oldest_retired_models_are_deleted(shelf: Path) -> None:
    """Only the newest ten previously served models are kept."""
    for _ in range(KEPT + 3):
        promote(shelf / "relative_trees")
    assert len(list((shelf / "retired").iterdir())) == KEPT
    promotion = read_promotion(shelf / "production")
    assert promotion is not None
    assert (shelf / "retired" / promotion.previous).is_dir()


def test_chosen_model_is_promoted_only_on_request(whole: Dataset, tmp_path: Path) -> None:
    """A training run promotes nothing by itself; its report promotes the chosen model if the request says so."""
    request = TrainingRequest(
        features=Path("features.parquet"), models=("logistic", "baseline"), artifacts=tmp_path, folds=2, search=0
    )
    report = train_on(until(whole, 6000), request, lambda _: None)
    assert promote_chosen(report) is report
    assert not (tmp_path / "production").exists()
    promoted = promote_chosen(replace(report, request=replace(request, promote=True)))
    assert promoted.promoted == tmp_path / "production"
    assert Artifact.load(promoted.promoted).name == report.chosen
    written = {file.name for file in (tmp_path / report.chosen).iterdir()}
    assert {file.name for file in promoted.promoted.iterdir()} == written | {"promotion.json"}


def test_torn_history_line_is_skipped(tmp_path: Path) -> None:
    """Half a line left by a killed run is skipped, and the next entry starts a new line."""
    for number in range(2):
        append_entry(tmp_path, HistoryEntry(time=str(number), event="checked", reason="calm"))
        with (tmp_path / HISTORY_FILE).open("ab") as file:
            file.write(b'{"time": "half')
    append_entry(tmp_path, HistoryEntry(time="2", event="failed", reason="killed"))
    assert [entry.time for entry in read_history(tmp_path)] == ["0", "1", "2"]
    assert read_history(tmp_path / "absent") == []


def test_history_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """An entry is logged instead, since what it records has happened."""
    (tmp_path / HISTORY_FILE).mkdir()
    with capture_logs() as logged:
        append_entry(tmp_path, HistoryEntry(time="2", event="failed", reason="killed"))
    assert [entry["event"] for entry in logged] == ["history_not_written"]
    assert "killed" in logged[0]["entry"]


def test_damaged_challenger_is_renamed(shelf: Path) -> None:
    """A challenger whose record or model is damaged no longer waits, and its files are kept."""
    for number, (file, content) in enumerate((("shadow.json", b"{}"), ("model.onnx", b"damaged"))):
        shutil.copytree(shelf / "ten", shelf / "challenger")
        (shelf / "challenger" / "shadow.json").write_text('{"since":"2026-01-01T00:00:00Z","hours":1,"reason":"test"}')
        (shelf / "challenger" / file).write_bytes(content)
        assert load_challenger(shelf) is None
        assert {model.folder.name for model in list_models(shelf)} == {"relative_trees", "ten"}
        assert not (shelf / "challenger").exists()
        assert len(list(shelf.glob("challenger.damaged-*"))) == number + 1
