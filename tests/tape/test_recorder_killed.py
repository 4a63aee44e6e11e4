"""A recording process that is killed, or limited by the operating system, leaves tapes that read."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tape.recording import read_back
from tests.tape.recording_child import BEAT_NS
from tests.tape.strategies import read_with_report
from volspike.market import SECOND_NS, Cause
from volspike.tape import Ledger, Recorder, tapes_of

pytestmark = pytest.mark.posix

ROOT = Path(__file__).resolve().parents[2]

LIMITED = """
import resource, signal
from tests.tape.recording import NOON, Clock, ticker
from volspike.tape import Recorder
import sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
clock = Clock()
recorder = Recorder(sys.argv[1], clock=clock)
for number in range(100):
    clock.now = NOON + number * 1_000_000_000
    recorder.frame(*ticker(clock.now))
    recorder.flush()
recorder.close()
print(recorder.recorded, recorder.unrecorded)
"""


def test_a_killed_recorder_loses_at_most_the_last_second(tmp_path: Path) -> None:
    """Killed at random moments, the tapes are readable up to the last second, and every restart is in the ledger."""
    chance = random.Random(5)  # noqa: S311
    runs = int(os.environ.get("VOLSPIKE_KILLS", "6"))  # `make test-system` sets more
    told = [run_and_kill(tmp_path, chance.randint(1, 400)) for _ in range(runs)]
    Recorder(tmp_path).close()  # the next start repairs a line that the last kill cut off
    ticks, report = read_with_report(tmp_path)
    assert report.rejected == 0
    assert {note.text for note in report.notes} <= {"is empty"}
    received = ticks.received.tolist()
    assert received == sorted(set(received))
    gaps = Ledger.read(tmp_path)
    assert [gap.cause for gap in gaps] == [Cause.RESTART] * len(gaps)
    tapes = [read_back(path).received for path in tapes_of(tmp_path) if path.stat().st_size]
    restarts = [(int(one[-1]), int(next_one[0])) for one, next_one in pairwise(tapes)]
    assert {(gap.start, gap.end) for gap in gaps} >= set(restarts)
    for beats in told:
        end = beats[-1]
        recorded = max((time for time in received if time <= end), default=0)
        lost = [beat for beat in beats if beat > recorded]
        assert len(lost) * BEAT_NS < SECOND_NS


def run_and_kill(folder: Path, beats: int) -> list[int]:
    """Records until the process has printed ``beats`` times, kills it, and returns the printed times."""
    command = [sys.executable, str(ROOT / "tests" / "tape" / "recording_child.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}) as child:  # noqa: S603
        assert child.stdout is not None
        told = b"".join(child.stdout.readline() for _ in range(beats))
        child.kill()
        told += child.stdout.read()
    return [int(text) for text in told.split(b"\n")[:-1]]


def test_a_file_that_may_not_grow_is_a_fault_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """At the limit of a file's size, the recorder cuts back to complete lines and begins a new file later."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    )
    recorded, unrecorded = map(int, done.stdout.split())
    ticks, report = read_with_report(tmp_path)
    assert (len(ticks), report.rejected) == (recorded, 0)
    assert recorded + unrecorded == 100
    assert sum(gap.lost for gap in Ledger.read(tmp_path)) == unrecorded
    assert len(tapes_of(tmp_path)) > 1
