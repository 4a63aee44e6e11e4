"""A retraining run ends well, or changes nothing; what it did and why is written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lifecycle.conftest import SECOND, Ask, as_real, until
from volspike.datasets import Dataset
from volspike.errors import UsageError
from volspike.lifecycle.challenger import waiting
from volspike.lifecycle.history import read_history
from volspike.lifecycle.promotion import exclusive_access
from volspike.lifecycle.retrain import retrain
from volspike.market import parse_time
from volspike.models import Artifact
from volspike.monitoring.results import TrainingResult, read_result

Hold = Callable[[Dataset], None]
Put = Callable[[str], Path]


def quiet(_: str) -> None:
    """Nobody watches."""


def served(artifacts: Path) -> str:
    """The digest of what is in production."""
    return Artifact.load(artifacts / "production").metadata.onnx_sha256


def test_better_challenger_is_served(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """A champion that learned from noise is replaced, and the history has reason and figures of both."""
    artifacts = champion("blind")
    rows(whole)
    before = served(artifacts)
    done = retrain(ask(), quiet)
    assert done.ended == "promoted"
    assert served(artifacts) != before
    assert done.verdict is not None
    assert done.verdict.figures["gain_low"] > 0
    told = read_history(artifacts)
    assert [entry.event for entry in told] == ["promoted", "trained", "promoted"]
    assert told[1].figures["challenger_pr_auc"] > told[1].figures["champion_pr_auc"]
    assert "better" in told[2].reason
    result = read_result(TrainingResult, ask().results)
    assert result is not None
    assert result.outcome == "promoted"
    assert [path.name for path in artifacts.iterdir() if path.name.startswith(".retraining.")] == [".retraining.lock"]


def test_challenger_waits_in_shadow_until_the_market_has_judged(
    whole: Dataset, champion: Put, ask: Ask, rows: Hold
) -> None:
    """It is served after its hours beside the champion, and not before; meanwhile nothing else is trained."""
    artifacts = champion("blind")
    before = served(artifacts)
    rows(until(whole, 16_000))
    assert retrain(ask(shadow_hours=2.0), quiet).ended == "waits"
    rows(until(whole, 18_000))
    assert retrain(ask(shadow_hours=2.0), quiet).ended == "waits"
    assert served(artifacts) == before
    rows(whole)
    done = retrain(ask(shadow_hours=2.0), quiet)
    assert done.ended == "promoted"
    assert served(artifacts) != before
    assert waiting(artifacts) is None
    assert [entry.event for entry in read_history(artifacts)] == ["promoted", "trained", "waits", "promoted"]
    assert not (artifacts / "production" / "shadow.json").exists()


def test_undecided_challenger_is_dropped_after_two_weeks(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """One that no market judged in time has lost, and a new one may be tried."""
    artifacts = champion("blind")
    rows(until(whole, 16_000))
    retrain(ask(shadow_hours=2.0), quiet)
    later = parse_time(read_history(artifacts)[-1].time) + 15 * 86_400 * SECOND
    done = retrain(ask(shadow_hours=2.0, if_needed=True), quiet, lambda: later)
    assert "rejected" in {entry.event for entry in read_history(artifacts)}
    assert done.need is not None


def test_nothing_is_trained_where_nothing_calls_for_it(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """A calm market and few new hours: a line in the history, and that is all."""
    artifacts = champion("good")
    rows(until(whole, 12_000))
    before = served(artifacts)
    done = retrain(ask(if_needed=True), quiet)
    assert done.ended == "not_needed"
    assert served(artifacts) == before
    assert [entry.event for entry in read_history(artifacts)] == ["promoted", "checked"]


@pytest.mark.parametrize("step", ["rows_of", "need_for", "train_on", "track", "duel", "put_in_shadow", "promote"])
def test_fault_at_any_step_changes_nothing(
    whole: Dataset, champion: Put, ask: Ask, rows: Hold, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks, what was served is served, no file is left over, and the history says what broke."""
    artifacts = champion("blind")
    rows(whole if step == "promote" else until(whole, 12_000))
    before = served(artifacts)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(f"volspike.lifecycle.retrain.{step}", fail)
    monkeypatch.setattr("volspike.training.tracking.TrackingSettings.is_on", step == "track")
    monkeypatch.setattr("volspike.training.tracking.TrackingSettings.check", lambda _: None)
    with pytest.raises(OSError, match="full"):
        retrain(ask(shadow_hours=1.0 if step == "put_in_shadow" else 0.0), quiet)
    assert served(artifacts) == before
    told = read_history(artifacts)[-1]
    assert (told.event, "the disk is full" in told.reason) == ("failed", True)
    assert sorted(path.name for path in artifacts.iterdir() if path.is_dir()) == ["production"]
    result = read_result(TrainingResult, ask().results)
    assert result is not None
    assert result.outcome == "failed"


def test_simulated_rows_leave_a_real_model_alone(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """A made-up market may not judge what serves a real one; a real one takes no notice of a simulated champion."""
    artifacts = champion("good")
    production = artifacts / "production" / "metadata.json"
    production.write_text(production.read_text().replace('"simulated": true', '"simulated": false'))
    rows(whole)
    with pytest.raises(UsageError, match="another --artifacts"):
        retrain(ask(), quiet)
    rows(as_real(until(whole, 7000)))
    assert retrain(ask(if_needed=True), quiet).ended == "not_needed"


def test_two_runs_do_not_meet(champion: Put, ask: Ask) -> None:
    """The second is told so."""
    artifacts = champion("good")
    with exclusive_access(artifacts, "retraining"), pytest.raises(UsageError, match="another run is retraining"):
        retrain(ask(), quiet)


@pytest.mark.parametrize(
    ("change", "told"), [({"models": ("oracle",)}, "oracle"), ({"shadow_hours": -1.0}, "hours of shadow")]
)
def test_wrong_requests_are_refused(ask: Ask, change: dict[str, object], told: str) -> None:
    """What cannot be asked for is refused before anything is read."""
    with pytest.raises(UsageError, match=told):
        retrain(ask(**change), quiet)
