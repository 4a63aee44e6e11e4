"""The examples of the page about the library and of the quickstart notebook run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import polars as pl
import pytest
from nbclient import NotebookClient
from tests.conftest import ROOT
from tests.docs.pages import parse_page

import volspike as vs
from volspike.feeds.simulation.market import simulate_market
from volspike.market import SECOND_NS
from volspike.tape import write_ndjson

PAGE = ROOT / "docs" / "library.md"
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
START = 1_760_000_400 * SECOND_NS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a reader: a CSV file of trades, and recorded tapes."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "data" / "raw").mkdir(parents=True)
    market = list(simulate_market(["BTC-USD"], 3 * 3600, 3, START))
    write_ndjson(market, folder / "data" / "raw" / "ticks.ndjson", simulated=True)
    time = np.concatenate([part.time for part in market])
    price = np.concatenate([part.price for part in market])
    size = np.concatenate([part.last_size for part in market])
    pl.DataFrame({"time": time, "price": price, "size": np.nan_to_num(size, nan=0.1)}).with_columns(
        time=pl.from_epoch("time", "ns").dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ"), side=pl.lit("buy")
    ).write_csv(folder / "trades.csv")
    return folder


def test_the_examples_of_the_page_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another in one namespace, as a reader would run them."""
    monkeypatch.chdir(folder)
    space: dict[str, Any] = {}
    blocks = [block for block in parse_page(PAGE)[1] if block.kind == "python"]
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile("\n".join(block.lines), f"library.md:{block.line}", "exec"), space)  # noqa: S102  our own page
    assert space["figures"]["rows"] > 1000


def test_the_page_lists_every_public_name() -> None:
    """The page and the package agree on what is stable."""
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in vs.__all__)


def test_the_quickstart_runs(folder: Path) -> None:
    """From a CSV file to an evaluated forecast without an error; it is stored without outputs."""
    shown = nbformat.read(NOTEBOOK, 4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in shown.cells)
    client = NotebookClient(shown, timeout=240, resources={"metadata": {"path": str(folder)}})
    client.execute(env=dict(os.environ) | {"IPYTHONDIR": str(folder / ".ipython")})
    outputs = [output for cell in shown.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("PR-AUC" in output.get("text", "") for output in outputs)
