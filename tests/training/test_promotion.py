"""Putting a model into service, and the way back; whatever goes wrong, what was served is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.artifacts import artifact

from volspike.errors import ArtifactMissing, ModelError, UsageError
from volspike.models import DEFAULT_MODEL, TEN_MODEL, Artifact
from volspike.models.history import HISTORY_FILE, HistoryEntry, history, remember
from volspike.training.promotion import (
    KEPT,
    alone,
    in_production,
    named_artifact,
    promote,
    promotion_of,
    rollback,
    standing_models,
)


def served(artifacts: Path) -> tuple[str, str]:
    """Model and creation of what is in production."""
    metadata = Artifact.load(artifacts / "production").metadata
    return metadata.model, metadata.created


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with two artifacts, ``har`` and ``ten``."""
    artifact(tmp_path / "har", created="2026-01-01T00:00:00Z")
    artifact(tmp_path / "ten", TEN_MODEL, created="2026-01-02T00:00:00Z", simulated=False)
    return tmp_path


def test_rollback_goes_back_one_by_one(shelf: Path) -> None:
    """Each step back serves the one before; before the first of all is the shipped model, and before that nothing."""
    promote(shelf / "har", "first")
    promote(shelf / "ten", "second")
    assert served(shelf)[0] == "logistic"
    rollback(shelf)
    assert served(shelf) == ("har", "2026-01-01T00:00:00Z")
    rollback(shelf)
    assert served(shelf) == ("har", Artifact.load(DEFAULT_MODEL).metadata.created)
    with pytest.raises(UsageError, match="first model"):
        rollback(shelf)
    told = [(entry.event, entry.model, entry.reason) for entry in history(shelf)]
    assert told == [
        ("promoted", "har", "first"),
        ("promoted", "logistic", "second"),
        ("rolled_back", "har", "asked for"),
        ("rolled_back", "har", "asked for"),
    ]


def test_model_that_was_served_can_be_served_again_by_name(shelf: Path) -> None:
    """What a rollback left is kept, and promoted by its name or the start of its digest."""
    promote(shelf / "har")
    promote(shelf / "ten")
    rollback(shelf)
    kept = next(one for one in standing_models(shelf) if one.name.startswith("retired/logistic"))
    assert promote(named_artifact(shelf, kept.folder.name), "after all") == shelf / "production"
    assert served(shelf)[0] == "logistic"
    assert named_artifact(shelf, kept.digest[:8])
    with pytest.raises(ArtifactMissing, match="models list"):
        named_artifact(shelf, "absent")


def test_nothing_in_production_has_no_way_back(shelf: Path) -> None:
    """A rollback without a promotion is refused."""
    with pytest.raises(ArtifactMissing, match="no way back"):
        rollback(shelf)


def test_damaged_model_is_not_promoted(shelf: Path) -> None:
    """What does not load takes nobody's place, and no line says it did."""
    promote(shelf / "har")
    (shelf / "ten" / "model.onnx").write_bytes(b"half")
    with pytest.raises(ModelError):
        promote(shelf / "ten")
    assert served(shelf)[0] == "har"
    assert len(history(shelf)) == 1


@pytest.mark.parametrize("step", ["_retire", "_files", "replace_folder"])
def test_fault_at_any_step_leaves_what_is_served(shelf: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while copying, reading or swapping changes neither the model nor its history."""
    promote(shelf / "har")

    def fail(*_: object, **__: object) -> None:
        raise UsageError("no space left on device")

    monkeypatch.setattr(f"volspike.training.promotion.{step}", fail)
    with pytest.raises(UsageError, match="no space"):
        promote(shelf / "ten")
    assert served(shelf)[0] == "har"
    assert [entry.event for entry in history(shelf)] == ["promoted"]


def test_simulated_model_takes_no_real_ones_place(shelf: Path) -> None:
    """What learned from a made-up market is kept from one that is real; the other way is open."""
    artifact(shelf / "made_up", simulated=True)
    promote(shelf / "made_up")
    promote(shelf / "har")
    with pytest.raises(UsageError, match="simulated market"):
        promote(shelf / "made_up")
    assert served(shelf)[0] == "har"


def test_challenger_that_is_served_waits_no_longer(shelf: Path) -> None:
    """Put into service by hand, it leaves its place in the shadow."""
    artifact(shelf / "challenger")
    (shelf / "challenger" / "shadow.json").write_text("{}")
    promote(named_artifact(shelf, "challenger"))
    assert not (shelf / "challenger").exists()
    assert not (shelf / "production" / "shadow.json").exists()


def test_two_do_not_promote_at_once(shelf: Path) -> None:
    """Who comes second is told so, and finds everything as it was."""
    with alone(shelf), pytest.raises(UsageError, match="another run"):
        promote(shelf / "har")
    assert in_production(shelf) is None


def test_old_models_are_let_go(shelf: Path) -> None:
    """Of those that were served before only the newest are kept."""
    for _ in range(KEPT + 3):
        promote(shelf / "har")
    assert len(list((shelf / "retired").iterdir())) == KEPT
    told = promotion_of(shelf / "production")
    assert told is not None
    assert (shelf / "retired" / told.previous).is_dir()


def test_torn_line_costs_nothing_but_itself(tmp_path: Path) -> None:
    """A killed run's half line is skipped, and the next line stands on its own."""
    for number in range(2):
        remember(tmp_path, HistoryEntry(time=str(number), event="checked", reason="calm"))
        with (tmp_path / HISTORY_FILE).open("ab") as file:
            file.write(b'{"time": "half')
    remember(tmp_path, HistoryEntry(time="2", event="failed", reason="killed"))
    assert [entry.time for entry in history(tmp_path)] == ["0", "1", "2"]
    assert history(tmp_path / "absent") == []
