"""A retraining run promotes, waits or changes nothing, and the history records why."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from tests.cli.command_line import run_in
from tests.lifecycle.conftest import Ask, as_real, until
from tests.training.markets import SECOND
from volspike.cli.options import handling
from volspike.cli.retrain import _exit
from volspike.datasets import Dataset, load_dataset
from volspike.errors import UsageError
from volspike.lifecycle.challenger import load_challenger
from volspike.lifecycle.promotion import exclusive_access, read_history
from volspike.lifecycle.retrain import (
    _run_folder,
    is_simulated,
    load_thinned,
    recent_tapes,
    replay_tapes,
    retrain,
    thin_features,
)
from volspike.market import SECOND_NS, parse_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, Artifact
from volspike.models.evidence import Limitation, LimitationKind
from volspike.models.metadata import decode_metadata
from volspike.monitoring.results import TrainingResult, read_result

Hold = Callable[[Dataset], None]
Put = Callable[[str], Path]


def quiet(_: str) -> None:
    """Discard the step."""


def served(artifacts: Path) -> str:
    """The digest of the model in production."""
    return Artifact.load(artifacts / "production").metadata.onnx_sha256


def test_better_challenger_is_promoted(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """A champion trained on noise is replaced, and the history has the reason and the figures of both."""
    artifacts = champion("blind")
    rows(whole)
    before = served(artifacts)
    done = retrain(ask(), quiet)
    assert done.outcome == "promoted"
    assert served(artifacts) != before
    assert done.verdict is not None
    assert done.verdict.figures["gain_low"] > 0
    entries = read_history(artifacts)
    assert [entry.event for entry in entries] == ["promoted", "trained", "promoted"]
    assert entries[1].figures["challenger_pr_auc"] > entries[1].figures["champion_pr_auc"]
    assert "better" in entries[2].reason
    result = read_result(TrainingResult, ask().results)
    assert result is not None
    assert result.outcome == "promoted"
    assert [path.name for path in artifacts.iterdir() if path.name.startswith(".retraining.")] == [".retraining.lock"]


def test_results_that_cannot_be_written_are_a_warning(
    whole: Dataset, champion: Put, ask: Ask, rows: Hold, tmp_path: Path
) -> None:
    """The challenger is promoted, and the run ends with a warning that names the folder."""
    champion("blind")
    rows(whole)
    (tmp_path / "file").touch()
    done = retrain(ask(results=tmp_path / "file" / "results"), quiet)
    assert done.outcome == "promoted"
    assert any("results" in warning for warning in done.warnings)


@pytest.mark.parametrize("hours", [0.0, 1.0])
def test_challenger_with_a_degenerate_threshold_is_rejected(
    whole: Dataset, champion: Put, ask: Ask, rows: Hold, hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However good its figures are, it is neither promoted nor put in shadow, and the history has the reason."""
    limitation = Limitation(LimitationKind.DEGENERATE_THRESHOLD, "in alarm on 90% of 100 test rows")
    monkeypatch.setattr("volspike.lifecycle.challenger.blocking_limitations", lambda _: (limitation,))
    artifacts = champion("blind")
    rows(whole)
    done = retrain(ask(shadow_hours=hours), quiet)
    assert (done.outcome, done.reasons[-1]) == ("rejected", limitation.text)
    assert [entry.event for entry in read_history(artifacts)][-1] == "rejected"
    assert not (artifacts / "challenger").exists()


def test_challenger_waits_in_shadow(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """It is promoted after its hours in shadow and not before; meanwhile no other model is trained."""
    artifacts = champion("blind")
    before = served(artifacts)
    rows(until(whole, 16_000))
    assert retrain(ask(shadow_hours=2.0), quiet).outcome == "waits"
    rows(until(whole, 18_000))
    assert retrain(ask(shadow_hours=2.0), quiet).outcome == "waits"
    assert served(artifacts) == before
    rows(whole)
    done = retrain(ask(shadow_hours=2.0), quiet)
    assert done.outcome == "promoted"
    assert served(artifacts) != before
    assert load_challenger(artifacts) is None
    assert [entry.event for entry in read_history(artifacts)] == ["promoted", "trained", "waits", "promoted"]
    assert not (artifacts / "production" / "shadow.json").exists()


def test_undecided_challenger_is_rejected_after_two_weeks(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """A challenger without a decision is rejected, and the run may train another."""
    artifacts = champion("blind")
    rows(until(whole, 16_000))
    retrain(ask(shadow_hours=2.0), quiet)
    later = parse_time(read_history(artifacts)[-1].time) + 15 * 86_400 * SECOND
    done = retrain(ask(shadow_hours=2.0, if_needed=True), quiet, lambda: later)
    assert "rejected" in {entry.event for entry in read_history(artifacts)}
    assert done.need is not None


def test_without_need_nothing_is_trained(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """An unchanged market with few new hours adds a history entry and nothing else."""
    artifacts = champion("good")
    rows(until(whole, 12_000))
    before = served(artifacts)
    done = retrain(ask(if_needed=True), quiet)
    assert done.outcome == "not_needed"
    assert served(artifacts) == before
    assert [entry.event for entry in read_history(artifacts)] == ["promoted", "checked"]


@pytest.mark.parametrize(
    "step", ["load_thinned", "assess_need", "train_on", "track_run", "compare_challenger", "start_shadow", "promote"]
)
def test_failure_at_any_step_changes_nothing(
    whole: Dataset, champion: Put, ask: Ask, rows: Hold, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any failure the same model is served, no temporary file is left, and the history has the error."""
    artifacts = champion("blind")
    rows(whole if step == "promote" else until(whole, 12_000))
    before = served(artifacts)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(f"volspike.lifecycle.retrain.{step}", fail)
    monkeypatch.setattr("volspike.training.tracking.TrackingSettings.is_on", step == "track_run")
    monkeypatch.setattr("volspike.training.tracking.TrackingSettings.check", lambda _: None)
    with pytest.raises(OSError, match="full"):
        retrain(ask(shadow_hours=1.0 if step == "start_shadow" else 0.0), quiet)
    assert served(artifacts) == before
    entry = read_history(artifacts)[-1]
    assert (entry.event, "the disk is full" in entry.reason) == ("failed", True)
    assert sorted(path.name for path in artifacts.iterdir() if path.is_dir()) == ["production"]
    result = read_result(TrainingResult, ask().results)
    assert result is not None
    assert result.outcome == "failed"


def test_simulated_rows_do_not_replace_a_real_model(whole: Dataset, champion: Put, ask: Ask, rows: Hold) -> None:
    """Simulated rows are refused while a real model is served; real rows are compared with the shipped real model."""
    artifacts = champion("good")
    production = artifacts / "production" / "metadata.json"
    production.write_text(production.read_text().replace('"simulated": true', '"simulated": false'))
    rows(whole)
    with pytest.raises(UsageError, match="another --artifacts"):
        retrain(ask(), quiet)
    rows(as_real(until(whole, 7000)))
    assert retrain(ask(if_needed=True), quiet).outcome == "not_needed"


def test_concurrent_runs_are_refused(champion: Put, ask: Ask) -> None:
    """The second of two runs gets an error."""
    artifacts = champion("good")
    with exclusive_access(artifacts, "retraining"), pytest.raises(UsageError, match="another run is retraining"):
        retrain(ask(), quiet)


@pytest.mark.parametrize(
    ("change", "message"), [({"models": ("oracle",)}, "oracle"), ({"shadow_hours": -1.0}, "--shadow-hours must be")]
)
def test_invalid_options_are_refused(ask: Ask, change: dict[str, object], message: str) -> None:
    """Invalid options are refused before any file is read."""
    with pytest.raises(UsageError, match=message):
        retrain(ask(**change), quiet)


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty simulated minutes with a few ticks per second."""
    folder = tmp_path_factory.mktemp("recorded")
    outcome = run_in(folder, "simulate", "--minutes", "20", "--seed", "3", "--out", "tape.ndjson")
    assert outcome.status == 0, outcome.err
    return folder / "tape.ndjson"


def test_only_the_newest_days_are_replayed(tape: Path, tmp_path: Path) -> None:
    """Older tapes are skipped; a tape whose name has no time is used."""
    for name in (
        "ticks_BTCUSD_20260101_000000",
        "ticks_BTCUSD_20260120_000000",
        "ticks_BTCUSD_20260121_050000",
        "mine",
    ):
        shutil.copy(tape, tmp_path / f"{name}.ndjson")
    names = [path.stem for path in recent_tapes(tmp_path, 14.0)]
    assert names == ["mine", "ticks_BTCUSD_20260120_000000", "ticks_BTCUSD_20260121_050000"]
    with pytest.raises(UsageError, match="no recordings"):
        recent_tapes(tmp_path / "absent", 14.0)


def test_replayed_rows_fit_the_served_model(tape: Path, tmp_path: Path) -> None:
    """Replayed rows have the served model's features, spacing and labels, one per second and product."""
    like = decode_metadata((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    assert is_simulated([tape])
    dataset = load_dataset(replay_tapes([tape], like, tmp_path, 400_000))
    assert dataset.facts.digest == like.feature_set.digest
    assert dataset.facts.simulated
    assert str(dataset.facts.every) == like.every
    assert len(np.unique(dataset.time // SECOND_NS)) >= 0.99 * len(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]


def test_thinning_changes_no_label(tape: Path, tmp_path: Path) -> None:
    """Of too many rows every k-th second's are kept, with unchanged labels and features."""
    like = decode_metadata((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    whole = replay_tapes([tape], like, tmp_path, 400_000)
    assert thin_features(whole, tmp_path / "thin.parquet", 300) > 1
    thin, full = load_dataset(tmp_path / "thin.parquet"), load_dataset(whole)
    places = np.searchsorted(full.time, thin.time)
    assert np.array_equal(full.future_volatility[places], thin.future_volatility)
    assert np.array_equal(full.x[places], thin.x, equal_nan=True)
    assert len(load_thinned(whole, tmp_path, 300)) == len(thin)
    assert len(load_thinned(whole, tmp_path, 400_000)) == len(full)


def test_leftovers_of_killed_runs_are_removed(champion: Put, ask: Ask) -> None:
    """The next run deletes their folders, whatever it decides; all its temporary files are in its own folder."""
    artifacts = champion("good")
    for name in (".retraining.run-a1b2c3d4", ".retraining.old_name"):
        (artifacts / name).mkdir()
        (artifacts / name / "features.parquet").write_bytes(b"half")
    assert retrain(ask(only_shadow=True), quiet).outcome == "no_challenger"
    assert [path.name for path in artifacts.glob(".retraining.*")] == [".retraining.lock"]
    before = tempfile.gettempdir()
    with _run_folder(artifacts) as folder, tempfile.TemporaryDirectory() as inside:
        assert Path(inside).parent == folder
    assert tempfile.gettempdir() == before
    assert not folder.exists()


def test_termination_ends_a_run_as_an_error_does() -> None:
    """SIGTERM, which a stopping `volspike up` sends, lets the run remove its files; the handler is restored."""
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            Event().wait(10)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)), handling(_exit, signal.SIGTERM):
        run()
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before
