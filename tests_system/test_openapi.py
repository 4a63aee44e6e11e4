"""The API conforms to its OpenAPI document: schemathesis sends valid and invalid requests for a minute."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_system.processes import Server, run_process, succeeded
from volspike.models import TEN_MODEL

# The names that a row must have depend on the model and are not in the document.
NOT_IN_THE_DOCUMENT = "positive_data_acceptance"


@pytest.mark.parametrize(
    ("options", "minimum"),
    [
        (("--include-path", "/predict", "--max-time", "40"), 300),
        (("--exclude-path", "/predict", "--max-examples", "50"), 200),
    ],
    ids=["predict", "other endpoints"],
)
def test_responses_conform_to_the_document(
    options: tuple[str, ...], minimum: int, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """No request makes the server fail, and status, type and body of each response are documented."""
    server = serve(tmp_path, "--model", TEN_MODEL, "--port", "0", "--rate-limit", "0")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json", *options]
    command += ["--seed", "1", "--checks", "all", "--no-color", "--no-shrink"]
    output = succeeded(run_process([*command, "--exclude-checks", NOT_IN_THE_DOCUMENT], tmp_path, timeout=280)).out
    found = re.search(r"(\d+) generated, (\d+) passed", output)
    assert found is not None, output
    assert int(found[1]) == int(found[2]) >= minimum
    metrics = server.metrics()
    failed = [name for name in metrics if name.startswith("http_requests_total{") and 'status="5' in name]
    assert [(name, metrics[name]) for name in failed if metrics[name]] == []
    assert server.stop()[0] == 0
    assert [event["event"] for event in server.events if event["level"] == "error"] == []
