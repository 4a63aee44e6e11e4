"""``volspike predict-stream`` before its first message."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import Run
from volspike.models import TEN_MODEL

SHIPPED = TEN_MODEL.parent / "default"


@pytest.mark.parametrize(("model", "warns"), [(SHIPPED, True), (TEN_MODEL, False)])
def test_a_model_that_adapts_live_is_announced_as_fixed(
    model: Path, warns: bool, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probabilities of the shipped model are calibrated online in ``volspike up`` only, and the command says so."""
    monkeypatch.setattr("volspike.cli.options.run_worker", lambda *_, **__: None)
    outcome = volspike("predict-stream", "--model", str(model), "--bootstrap-servers", "127.0.0.1:1")
    assert outcome.status == 0
    assert ("its probabilities are not calibrated by outcomes" in outcome.err) is warns
