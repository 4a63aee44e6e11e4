"""The examples as installed distributions, and plug-ins that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.conftest import ROOT
from volspike.errors import PluginFailed, SchemaMismatch, UsageError
from volspike.features import ExtraColumn, ExtraFacts, ExtraFeatures, FeatureSet
from volspike.features.extra import ExtraState, resolve_extras
from volspike.models import DETECTORS, Sample
from volspike.models.detector import _load_plugin
from volspike.monitoring.alerts import receiver_for
from volspike.plugins import installed
from volspike.testing import check_feature

EXAMPLES = ROOT / "examples"


def forget() -> None:
    installed.cache_clear()
    _load_plugin.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of distributions on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
    forget()


def install(folder: Path, module: str, code: str, group: str, entry: str) -> None:
    """A distribution as an installer leaves it."""
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    forget()


def install_example(folder: Path, name: str) -> None:
    """One of ``examples/``, with the entry point of its ``pyproject.toml``."""
    project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text())["project"]
    ((group, entries),) = project["entry-points"].items()
    ((key, value),) = entries.items()
    module = name.replace("-", "_")
    install(folder, module, (EXAMPLES / name / f"{module}.py").read_text(), group, f"{key} = {value}")


@pytest.mark.parametrize("name", ["volspike-roll", "volspike-mlp", "volspike-hook"])
def test_the_tests_of_the_examples_pass(name: str) -> None:
    """Each example's own tests run with its module on the path."""
    folder = EXAMPLES / name
    path = os.pathsep.join([str(folder), str(ROOT / "src")])
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-c", os.devnull, "--rootdir", str(folder), str(folder)]
    done = subprocess.run(  # noqa: S603
        [*command, "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_example_feature_is_part_of_a_set(site: Path) -> None:
    """``core+roll`` appends its column; without the distribution its facts are refused with what to install."""
    install_example(site, "volspike-roll")
    chosen = FeatureSet.of((30, 60), "core+roll")
    assert chosen.names == (*FeatureSet((30, 60)).names, "roll__spread_bps")
    assert chosen.digest != FeatureSet((30, 60)).digest
    facts = chosen.extras[0].facts
    assert resolve_extras([facts]) == chosen.extras
    with pytest.raises(SchemaMismatch, match=r"have digest 0+ there.*install volspike-roll 1\.0 as it was"):
        resolve_extras([ExtraFacts(name="roll", digest="0" * 12, origin=facts.origin)])
    with pytest.raises(SchemaMismatch, match=r"x \(digest 0\) are not installed; install gone 2"):
        resolve_extras([ExtraFacts(name="x", digest="0", origin="gone 2")])


def test_the_example_model_has_an_origin(site: Path) -> None:
    """The registry lists it with its distribution after the built-in models."""
    install_example(site, "volspike-mlp")
    assert DETECTORS["mlp"].origin == "volspike-mlp 1.0"
    assert "mlp (of volspike-mlp 1.0)" in DETECTORS.describe()
    assert "mlp" not in DETECTORS.built_in


BROKEN_MODEL = """
import numpy as np
from volspike.models import Detector

class Fitted:
    def score(self, x):
        return {score}

class Model(Detector):
    name = "broken"
    def learn(self, rows):
        return Fitted()
"""


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("np.zeros((len(x), 2))", r"returned \(40, 2\) from score instead of \(40,\)"),
        ("np.full(len(x), np.nan)", "returned nan from score"),
        ("np.full(len(x), 1.5)", r"returned 1\.5 from score.*in \[0, 1\]"),
        ("1 / 0", "failed in score: ZeroDivisionError"),
    ],
)
def test_a_model_that_returns_no_probabilities_is_named(site: Path, score: str, message: str) -> None:
    """The error names the distribution."""
    install(site, "broken_model", BROKEN_MODEL.format(score=score), "volspike.models", "broken = broken_model:Model")
    x = np.random.default_rng(0).standard_normal((40, 1))
    volatility = np.exp(x[:, 0])
    tau = np.ones(40)
    sample = Sample(("log_return_30s",), x, (volatility >= tau).astype(np.int8), volatility, tau, np.ones(40))
    with pytest.raises(PluginFailed, match=f"the model broken of broken-model 1.0 {message}"):
        DETECTORS["broken"]().fit(sample).probability(x)


def test_a_model_that_cannot_be_imported_is_named(site: Path) -> None:
    """The error names the entry point and its distribution."""
    install(site, "no_model", "raise RuntimeError('no licence')\n", "volspike.models", "none = no_model:Model")
    with pytest.raises(UsageError, match="none = no_model:Model of no-model cannot be imported: RuntimeError"):
        DETECTORS["none"]


def test_an_alert_reaches_the_example_receiver(site: Path) -> None:
    """The URL's scheme selects the plug-in; the token is sent and not shown."""
    install_example(site, "volspike-hook")
    received: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.headers["authorization"]))
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        receiver = receiver_for(f"hook://secret@127.0.0.1:{server.server_port}/alerts")
        assert receiver.send("spike", "BTC-USD")
        server.shutdown()
        thread.join()
    assert received == [("/alerts", "Bearer secret")]
    assert "secret" not in repr(receiver) + receiver.address


_seen: list[float] = []


def remember(_: object, inputs: np.ndarray, out: np.ndarray) -> None:
    _seen.append(inputs[0])
    out[0] = len(_seen)


def test_a_feature_with_state_of_its_own_fails_the_check() -> None:
    """Values that depend on a global list differ between two runs."""
    columns = (ExtraColumn("count", "1", "calls"),)
    bad = ExtraFeatures(
        name="bad", version="1", columns=columns, inputs=("price",), initial=(0.0,), update=remember, definition="x"
    )
    with pytest.raises(AssertionError, match="bad__count differs in bulk"):
        check_feature(bad, tapes=1, ticks=60)


def test_a_wrong_reference_is_reported(site: Path) -> None:
    """A wrong reference is reported with the column."""
    install_example(site, "volspike-roll")
    roll = import_module("volspike_roll").ROLL
    with pytest.raises(AssertionError, match="roll__spread_bps is"):
        check_feature(roll, lambda seconds: {"spread_bps": seconds["price"] * 0.0}, tapes=1, ticks=60)


def endless(state: np.ndarray, inputs: np.ndarray, out: np.ndarray) -> None:
    state[0] += 1.0
    out[0] = (np.inf, -np.inf, inputs[0])[int(state[0]) % 3]


def test_an_infinite_value_is_missing() -> None:
    """A quotient by zero becomes NaN, which files, messages and models treat as missing; other rows keep theirs."""
    columns = (ExtraColumn("value", "1", "infinite in two of three rows"),)
    extra = ExtraFeatures(
        name="endless", version="1", columns=columns, inputs=("price",), initial=(0.0,), update=endless, definition="x"
    )
    state = ExtraState([extra], ["price"])
    seconds = np.arange(1, 7) * 1_000_000_000
    prices = np.full((6, 1), 7.0)
    found = state.compute(np.zeros(6, np.int64), seconds, np.zeros(6, np.int64), np.ones(6, np.bool_), prices)
    np.testing.assert_array_equal(found[:, 0], [np.nan, 7.0, np.nan, np.nan, 7.0, np.nan])
