"""The API is what its document says: schemathesis makes requests from the document for a minute, sound and unsound."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_system.processes import Server, finished, well
from volspike.models import TEN_MODEL

# Which names a row must have depends on the model, which the document does not know.
UNKNOWN_TO_THE_DOCUMENT = "positive_data_acceptance"


@pytest.mark.parametrize(
    ("wanted", "least"),
    [
        (("--include-path", "/predict", "--max-time", "40"), 300),
        (("--exclude-path", "/predict", "--max-examples", "50"), 200),
    ],
    ids=["predict", "the others"],
)
def test_answers_conform_to_the_document(
    wanted: tuple[str, ...], least: int, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """Whatever is asked, the server does not fail, and status, type and body are among those that are documented."""
    server = serve(tmp_path, "--model", TEN_MODEL, "--port", "0", "--rate-limit", "0")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json", *wanted]
    command += ["--seed", "1", "--checks", "all", "--no-color", "--no-shrink"]
    told = well(finished([*command, "--exclude-checks", UNKNOWN_TO_THE_DOCUMENT], tmp_path, timeout=280)).out
    found = re.search(r"(\d+) generated, (\d+) passed", told)
    assert found is not None, told
    assert int(found[1]) == int(found[2]) >= least
    metrics = server.metrics()
    failed = [name for name in metrics if name.startswith("http_requests_total{") and 'status="5' in name]
    assert [(name, metrics[name]) for name in failed if metrics[name]] == []
    assert server.stop()[0] == 0
    assert [event["event"] for event in server.events if event["level"] == "error"] == []
