"""Where a run is tracked is told at the start; what cannot work is refused there, and secrets are not repeated."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.config import settle
from volspike.errors import UsageError
from volspike.training.tracking import LOCAL_STORE, TrackingSettings, database_file, masked


def test_without_a_uri_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default asks for no MLflow, so that it need not be installed."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    settings = settle(TrackingSettings, {}, {}, None, "tracking")
    assert not settings.is_on
    settings.check()


def test_the_environment_names_store_and_experiment() -> None:
    """MLflow's own variables are read; a flag is stronger, and an empty one turns tracking off."""
    told = {"MLFLOW_TRACKING_URI": "http://localhost:5001", "MLFLOW_EXPERIMENT_NAME": "mine"}
    settings = settle(TrackingSettings, {"tracking_uri": None}, told, None, "tracking")
    assert settings == TrackingSettings(tracking_uri="http://localhost:5001", experiment="mine")
    assert settle(TrackingSettings, {"tracking_uri": LOCAL_STORE}, told, None, "tracking").tracking_uri == LOCAL_STORE
    assert not settle(TrackingSettings, {"tracking_uri": ""}, told, None, "tracking").is_on
    assert TrackingSettings().experiment == "volatility_detection"


def test_without_mlflow_a_uri_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for tracking where MLflow is not installed learns how to get it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"MLflow is not installed.*volspike\[tracking\]"):
        TrackingSettings(tracking_uri=LOCAL_STORE).check()


@pytest.mark.parametrize(
    "uri", ["http://localhost:5001", "https://u:p@host/mlflow", LOCAL_STORE, "postgresql+psycopg2://h/db"]
)
def test_servers_and_databases_are_taken(uri: str) -> None:
    """Every kind of store that MLflow keeps runs in passes."""
    TrackingSettings(tracking_uri=uri).check()


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "localhost:5001", "sqlite://", "ftp://u:secret@host"])
def test_what_is_no_store_is_refused(uri: str) -> None:
    """A folder, an address without a scheme and a database in memory are refused, without repeating a password."""
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
def test_the_database_file_is_told(uri: str, file: str | None) -> None:
    """Relative and absolute files are told apart by the fourth slash."""
    assert database_file(uri) == file


@given(st.text("abcxyz0189/:@%!", min_size=1).map("Geheim{}".format), st.sampled_from(["ada", "a.b", "t-1"]))
def test_no_secret_is_shown(password: str, user: str) -> None:
    """Whatever stands between the scheme and the host, or behind a password's name, is not shown."""
    settings = TrackingSettings(tracking_uri=f"https://{user}:{password}@tracking:5001/x?page=2")
    for shown in (repr(settings), masked(settings.tracking_uri), masked(f"postgresql://h/db?password={password}&x=1")):
        assert "Geheim" not in shown
    assert masked(settings.tracking_uri) == "https://***@tracking:5001/x?page=2"
    assert repr(settings).endswith("experiment='volatility_detection')")
