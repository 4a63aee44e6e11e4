"""Replay on a real local Ray cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from volspike.datasets.dataset import compare
from volspike.feeds.simulation.market import simulate_market
from volspike.market import Ticks
from volspike.tape import write_ndjson

START = 1_760_000_000_000_000_000


def test_ray_builds_the_file_of_one_pass(tmp_path: Path) -> None:
    """``replay --engine ray`` over three days of three products writes the same rows, bit for bit, as one process."""
    for day in range(3):
        products = ["BTC-USD", "ETH-USD", "SOL-USD"]
        ticks = Ticks.join(list(simulate_market(products, 1200, day, START + day * 86_400 * 10**9)))
        write_ndjson([ticks], tmp_path / f"day{day}.ndjson")
    for name, options in (("one", ["--workers", "1"]), ("ray", ["--engine", "ray", "--workers", "2"])):
        arguments = ["replay", "--raw", "day*.ndjson", "--out", f"{name}.parquet", "--every", "1s", *options]
        run = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "volspike", *arguments],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, ""), run.stderr
    found = compare(tmp_path / "ray.parquet", tmp_path / "one.parquet")
    assert found.is_equal
    assert found.common > 8000
