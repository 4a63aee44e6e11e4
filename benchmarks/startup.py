"""Start-up of commands that do little work: CPU seconds, compared with the import of NumPy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from volspike.models import DEFAULT_MODEL, SIMULATED_MODEL

LIMIT_S: Final = 0.8
NUMPY_S: Final = 0.15
"""CPU seconds of ``import numpy`` on the machine for which the limit is meant."""

ROUNDS: Final = 3
NOWHERE: Final = "127.0.0.1:1"

COMMANDS: Final = (
    ("--help",),
    ("train", "--foo"),
    ("train", "--features", "x.parquet", "--models", "lightgbn"),
    ("train", "--features", "x.parquet"),
    ("trian",),
    ("models", "list"),
    ("models", "promote", "second"),
    ("models", "rollback"),
    ("gaps", "--tape", "no_tape"),
    ("topics", "list", "--bootstrap-servers", NOWHERE),
)
"""Run one after the other in a folder with two models: ``models/artifacts/first`` and ``second``."""

DOCTOR: Final = ("doctor", "--timeout", "0.2", "--rest-url", f"http://{NOWHERE}")


def cpu_seconds(arguments: Sequence[str], folder: Path, *, until_first_line: bool = False) -> float:
    """CPU seconds of a Python process, user and system; with ``until_first_line`` it is killed after its first line."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    with process.stdout as output:
        if until_first_line:
            output.readline()
            process.kill()
        else:
            output.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def main() -> list[Figure]:
    """Each command's CPU time; the limit grows with the time of ``import numpy`` in this run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numpy_s = min(cpu_seconds(("-c", "import numpy"), folder) for _ in range(ROUNDS))
        for model, source in {"production": SIMULATED_MODEL, "first": SIMULATED_MODEL, "second": DEFAULT_MODEL}.items():
            shutil.copytree(source, folder / "models" / "artifacts" / model)
        limit = LIMIT_S * numpy_s / NUMPY_S
        figures = []
        for command in (*COMMANDS, DOCTOR):
            arguments, is_doctor = ("-m", "volspike", *command), command is DOCTOR
            cpu_s = min(cpu_seconds(arguments, folder, until_first_line=is_doctor) for _ in range(ROUNDS))
            figures.append(
                Figure(
                    f"volspike `{'doctor`, first line' if is_doctor else ' '.join(command) + '`'}",
                    f"{cpu_s:.2f} s of CPU time",
                    f"under {limit:.2f} s",
                    cpu_s < limit,
                    f"`import numpy`: {numpy_s:.2f} s",
                )
            )
    return figures


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
