"""The notebook runs on any labelled feature file and is stored without outputs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tests.conftest import ROOT

from volspike.datasets.build import build_features, label_file
from volspike.features import Every, FeatureSet
from volspike.feeds.simulation.market import simulate_market
from volspike.market import parse_time
from volspike.tape import write_ndjson

NOTEBOOK = ROOT / "notebooks" / "eda.ipynb"


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, 4)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, features: str | None) -> str:
    """The text that its cells print or display when run in ``folder``."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    if features is None:
        monkeypatch.delenv("VOLSPIKE_FEATURES", raising=False)
    else:
        monkeypatch.setenv("VOLSPIKE_FEATURES", features)
    shown = notebook()
    NotebookClient(shown, timeout=240, resources={"metadata": {"path": str(folder)}}).execute(env=dict(os.environ))
    outputs = [output for cell in shown.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 9
    texts = [output.get("text", "") or output.get("data", {}).get("text/markdown", "") for output in outputs]
    return "\n".join(texts)


def test_it_reads_the_given_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small feature file passes through every cell: tables for each percentile, and a SIMULATED marker."""
    tape, features = tmp_path / "tape.ndjson", tmp_path / "mine.parquet"
    start = parse_time("2026-01-05T00:00:00Z")
    write_ndjson(simulate_market(["BTC-USD"], 90 * 60, 3, start), tape, simulated=True)
    build_features([tape], features, FeatureSet(), Every.SECOND)
    label_file(features, features)
    tape.unlink()
    shown = run(tmp_path, monkeypatch, "mine.parquet")
    assert "SIMULATED market" in shown
    assert "| percentile | spike rows | runs | events |" in shown
    assert "| percentile | events | base rate | baseline | persistence |" in shown
    for percentile in (80, 85, 90, 93, 95, 97, 98, 99):
        assert len(re.findall(rf"^\| {percentile} \|", shown, re.MULTILINE)) == 3
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["mine.parquet"]


def test_without_a_file_it_simulates_one(tmp_path: Path) -> None:
    """The path comes from the environment; the simulated file is written to the same folder and named simulated."""
    parameters = notebook().cells[1].source
    assert 'os.environ.get("VOLSPIKE_FEATURES", "data/processed/features.parquet")' in parameters
    (making,) = [cell.source for cell in notebook().cells if "def simulated(" in cell.source]
    made = making[: making.index("if not FEATURES.exists()")]
    space: dict[str, Any] = {}
    exec(made, space)  # noqa: S102  the notebook's own cell
    path = space["simulated"](tmp_path / "data" / "simulated.parquet", 12)
    assert path.is_file()
    assert 'FEATURES.with_name("simulated.parquet")' in making


def test_it_is_stored_without_outputs() -> None:
    """No outputs, no execution counts, and no path of the machine on which it ran."""
    raw = json.loads(NOTEBOOK.read_text())
    for cell in raw["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell["metadata"] == {}
    assert raw["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not re.search(r"/(home|Users|root|tmp|work)/", NOTEBOOK.read_text())
