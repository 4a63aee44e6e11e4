"""Tracking settings are checked before training, secrets are masked, and the run's facts are verifiable."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.config import load_settings
from volspike.errors import UsageError
from volspike.training.tracking import (
    LOCAL_STORE,
    TrackingSettings,
    database_file,
    describe_machine,
    file_sha256,
    list_packages,
    masked,
)


def test_without_a_uri_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default nothing is tracked, and MLflow need not be installed."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    settings = load_settings(TrackingSettings, {}, {}, None, "tracking")
    assert not settings.is_on
    settings.check()


def test_the_environment_names_store_and_experiment() -> None:
    """MLflow's environment variables are read; a flag overrides them, and an empty one turns tracking off."""
    told = {"MLFLOW_TRACKING_URI": "http://localhost:5001", "MLFLOW_EXPERIMENT_NAME": "mine"}
    settings = load_settings(TrackingSettings, {"tracking_uri": None}, told, None, "tracking")
    assert settings == TrackingSettings(tracking_uri="http://localhost:5001", experiment="mine")
    assert (
        load_settings(TrackingSettings, {"tracking_uri": LOCAL_STORE}, told, None, "tracking").tracking_uri
        == LOCAL_STORE
    )
    assert not load_settings(TrackingSettings, {"tracking_uri": ""}, told, None, "tracking").is_on
    assert TrackingSettings().experiment == "volatility_detection"


def test_without_mlflow_a_uri_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLflow a URI is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"MLflow is not installed.*volspike\[tracking\]"):
        TrackingSettings(tracking_uri=LOCAL_STORE).check()


@pytest.mark.parametrize(
    "uri", ["http://localhost:5001", "https://u:p@host/mlflow", LOCAL_STORE, "postgresql+psycopg2://h/db"]
)
def test_servers_and_databases_are_accepted(uri: str) -> None:
    """Every kind of MLflow store is accepted."""
    TrackingSettings(tracking_uri=uri).check()


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "localhost:5001", "sqlite://", "ftp://u:secret@host"])
def test_invalid_store_is_refused(uri: str) -> None:
    """A folder, an address without scheme and an in-memory database are refused without repeating a password."""
    with pytest.raises(UsageError, match="neither an MLflow server nor a database; use a URI such as") as refused:
        TrackingSettings(tracking_uri=uri).check()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlruns/mlflow.db", "mlruns/mlflow.db"),
        ("sqlite:////var/mlflow.db?timeout=5", "/var/mlflow.db"),
        ("sqlite+pysqlite:///a.db", "a.db"),
        ("sqlite://", None),
        ("postgresql://host/db", None),
    ],
)
def test_database_file_of_a_uri(uri: str, file: str | None) -> None:
    """The fourth slash makes the path of a database file absolute."""
    assert database_file(uri) == file


@given(st.text("abcxyz0189/:@%!", min_size=1).map("Geheim{}".format), st.sampled_from(["ada", "a.b", "t-1"]))
def test_no_secret_is_shown(password: str, user: str) -> None:
    """User and password before the host, and the value of a password parameter, are masked."""
    settings = TrackingSettings(tracking_uri=f"https://{user}:{password}@tracking:5001/x?page=2")
    for shown in (repr(settings), masked(settings.tracking_uri), masked(f"postgresql://h/db?password={password}&x=1")):
        assert "Geheim" not in shown
    assert masked(settings.tracking_uri) == "https://***@tracking:5001/x?page=2"
    assert repr(settings).endswith("experiment='volatility_detection')")


def test_the_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    """The SHA-256 covers a file larger than one read buffer."""
    content = bytes(range(256)) * 4096
    (tmp_path / "f.parquet").write_bytes(content)
    assert file_sha256(tmp_path / "f.parquet") == hashlib.sha256(content).hexdigest()


def test_packages_are_requirements() -> None:
    """Every installed distribution is listed once, with its version, in order."""
    lines = list_packages().splitlines()
    assert f"numpy=={version('numpy')}" in lines
    assert lines == sorted(set(lines), key=str.lower)
    assert set(describe_machine()) == {"volspike", "python", "platform"}
