"""Limits: long tapes, full disks, and replays that are killed or interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests_system.processes import VOLSPIKE, environment, run_process, run_volspike, succeeded
from volspike.market import MISSING_ID, Kind, Side, Ticks
from volspike.tape import write_parquet

SECOND = 1_000_000_000
START = 1_767_571_200 * SECOND
TICKS_PER_S = 10
LONG = 2_000_000

OLD = b"the previous file"

PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command and prints its peak memory; a small process of its own, because its memory is counted as well."""

SMALL_DISK = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that cannot write a file longer than so many bytes, as on a full disk."""


def random_walk(ticks: int, chunk: int = 100_000) -> Iterator[Ticks]:
    """``ticks`` ticker messages, ten a second, in chunks."""
    price = 90_000.0
    for first in range(0, ticks, chunk):
        count = min(chunk, ticks - first)
        random = np.random.default_rng(first)
        path = np.abs(price + np.cumsum(random.normal(size=count))) + 1.0
        price = float(path[-1])
        time_ns = START + np.arange(first, first + count) * (SECOND // TICKS_PER_S)
        unknown = np.full(count, MISSING_ID, np.int64)
        yield Ticks(
            products=("BTC-USD",),
            time=time_ns,
            received=time_ns,
            kind=np.full(count, Kind.TICKER, np.int8),
            product=np.zeros(count, np.int32),
            price=path,
            best_bid=path - 0.01,
            best_ask=path + 0.01,
            bid_size=random.random(count) + 0.1,
            ask_size=random.random(count) + 0.1,
            last_size=np.full(count, np.nan),
            side=np.full(count, Side.UNKNOWN, np.int8),
            trade_id=unknown,
            sequence=unknown,
        )


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a long Parquet tape and one a quarter as long; the kernel is compiled."""
    folder = tmp_path_factory.mktemp("tapes")
    for name, ticks in (("quarter", LONG // 4), ("long", LONG), ("warm", 5000)):
        write_parquet(random_walk(ticks), folder / f"{name}.parquet", simulated=True)
    succeeded(run_volspike(folder, "replay", "--raw", "warm.parquet", "--out", "warm.features.parquet", "--add-labels"))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An existing feature file, alone in its folder."""
    file = tmp_path / "out" / "f.parquet"
    file.parent.mkdir()
    file.write_bytes(OLD)
    return file


def peak_memory(folder: Path, *arguments: str) -> int:
    """The peak resident memory of a command, in the unit of the operating system."""
    return int(succeeded(run_process([sys.executable, "-c", PEAK, *VOLSPIKE, *arguments], folder)).out)


@pytest.mark.parametrize("labels", [[], ["--add-labels"]])
def test_memory_does_not_grow_with_the_tape(labels: list[str], tapes: Path, tmp_path: Path) -> None:
    """Four times the ticks need at most 10 % more memory, with and without labels."""
    used = [
        peak_memory(tapes, "replay", "--raw", f"{name}.parquet", "--out", str(tmp_path / "f.parquet"), *labels)
        for name in ("quarter", "long")
    ]
    assert used[1] / used[0] < 1.1


@contextmanager
def replaying(tape: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A running replay; it is killed at the end of the block."""
    command = [*VOLSPIKE, "replay", "--raw", str(tape), "--out", str(out)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


def wait_until_written(folder: Path, size: int) -> None:
    """Waits until the temporary files in ``folder`` have ``size`` bytes in total."""
    deadline = time.monotonic() + 60
    while sum(file.stat().st_size for file in folder.glob(".*.part")) < size:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("size", [0, 1, 10_000_000, 60_000_000])
def test_a_killed_replay_leaves_the_old_file(size: int, tapes: Path, out: Path) -> None:
    """A replay killed at any time leaves the previous file and no visible partial file; the next replay succeeds."""
    with replaying(tapes / "long.parquet", out) as process:
        wait_until_written(out.parent, size)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert out.read_bytes() == OLD
    assert [file.name for file in out.parent.iterdir() if not file.name.startswith(".")] == [out.name]
    succeeded(run_volspike(out.parent, "replay", "--raw", tapes / "warm.parquet", "--out", out.name))
    assert pq.read_metadata(out).num_rows == 5000


def test_ctrl_c_stops_a_replay_cleanly(tapes: Path, out: Path) -> None:
    """An interrupted replay prints one line, ends with status 130, and leaves only the previous file."""
    # a shell that runs the tests in the background ignores SIGINT, and children would inherit that
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with replaying(tapes / "long.parquet", out) as process:
            wait_until_written(out.parent, 1_000_000)
            os.kill(process.pid, signal.SIGINT)
            _, error = process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert (process.returncode, error) == (130, "stopped\n")
    assert [file.read_bytes() for file in out.parent.iterdir()] == [OLD]


@pytest.mark.parametrize("free_bytes", [1000, 20_000_000])
def test_full_disk_is_one_error_line(free_bytes: int, tapes: Path, out: Path) -> None:
    """A full disk gives one line of error and status 2; only the previous file is left."""
    replay = [*VOLSPIKE, "replay", "--raw", str(tapes / "long.parquet"), "--out", str(out), "--add-labels"]
    command = [sys.executable, "-c", SMALL_DISK, str(free_bytes), *replay]
    # otherwise the limit would truncate bytecode files, which the next process reads
    outcome = run_process(command, out.parent, PYTHONDONTWRITEBYTECODE="1")
    assert "File too large" in outcome.err
    assert outcome.err.count("\n") == 1
    assert (outcome.status, outcome.out) == (2, "")
    assert [file.read_bytes() for file in out.parent.iterdir()] == [OLD]
