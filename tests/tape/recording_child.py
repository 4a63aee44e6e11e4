"""A recording process to be killed: ``python recording_child.py FOLDER`` prints the time of each received tick."""

from __future__ import annotations

import sys
import time

from tests.tape.recording import ticker
from volspike.market import SECOND_NS
from volspike.tape import Recorder


def main(folder: str) -> None:
    recorder = Recorder(folder)
    written = 0
    while True:
        now = time.time_ns()
        recorder.frame(*ticker(now))
        if now - written > SECOND_NS // 200:
            written = now
            sys.stdout.write(f"{now}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
