"""A recording process to be killed: ``python recording_child.py FOLDER`` prints the time of a tick at each beat.

Beats are counted, not seconds: while all of the machine pauses, seconds pass without a tick that could be recorded.
"""

from __future__ import annotations

import sys
import time

from tests.tape.recording import ticker
from volspike.market import SECOND_NS
from volspike.tape import Recorder

BEAT_NS = SECOND_NS // 200
"""Shortest time between two beats."""

PAUSE_S = 0.0005
"""About 1,500 ticks per second: those of twenty busy products. Tens of thousands would measure how fast the disk is."""


def main(folder: str) -> None:
    recorder = Recorder(folder)
    written = 0
    while True:
        now = time.time_ns()
        recorder.frame(*ticker(now))
        if now - written > BEAT_NS:
            written = now
            sys.stdout.write(f"{now}\n")
            sys.stdout.flush()
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
