"""Start-up time of the command."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.figures import Figure
from benchmarks.kernel import best_of


def main() -> list[Figure]:
    """`volspike --help`, compared with an empty Python program."""
    help_s = best_of(
        lambda: subprocess.run([sys.executable, "-m", "volspike", "--help"], check=True, capture_output=True)
    )
    bare_s = best_of(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    return [
        Figure("`volspike --help`", f"{help_s:.2f} s", "under 0.4 s", help_s < 0.4, f"Python alone: {bare_s:.2f} s")
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
