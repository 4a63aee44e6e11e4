"""``python -m benchmarks [--write FILE]``: every promise beside what was measured, as one table."""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import kafka, kernel, learning, live, metrics, predict, replay, startup, tape
from benchmarks.figures import Figure, markdown


def main() -> None:
    """Runs every benchmark and prints the table; with --write it also goes to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    asked = parser.parse_args()
    figures: list[Figure] = []
    for module in (kernel, tape, replay, startup, predict, live, metrics, kafka, learning):
        print(f"… {module.__name__}", flush=True)
        figures += module.main()
    shown = markdown(figures)
    print(shown)
    if asked.write is not None:
        when, cores = datetime.now(UTC).date(), os.cpu_count()
        head = (
            "# What was measured\n\n"
            f"Made by `make bench` on {when}: {cores} cores, Python {platform.python_version()}, {platform.machine()}, "
            "a shared machine. Absolute figures vary with the machine; the last column is of the same run.\n\n"
        )
        asked.write.write_text(head + shown)


if __name__ == "__main__":
    main()
