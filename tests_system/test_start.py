"""What a command costs before it does anything: imports, and machine code that is made once."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests_system.processes import VOLSPIKE, environment, finished, volspike, well
from volspike.cli.app import COMMANDS

HEAVY = {"numba", "sklearn", "onnxruntime", "onnx", "pyarrow", "fastapi", "uvicorn", "matplotlib", "xgboost", "scipy"}

COUNTED = """
import json, sys
from numba.core.dispatcher import Dispatcher
from volspike.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
ours = [module for name, module in sys.modules.items() if name.startswith("volspike")]
compiled = {id(value): value for module in ours for value in vars(module).values() if isinstance(value, Dispatcher)}
kept = {value.py_func.__qualname__: sum(value.stats.cache_hits.values()) for value in compiled.values()}
made = {value.py_func.__qualname__: sum(value.stats.cache_misses.values()) for value in compiled.values()}
print(json.dumps([{name: count for name, count in each.items() if count} for each in (kept, made)]))
"""
"""Runs a command, then prints which functions came from numba's cache and which were compiled."""


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    """What computes, learns or serves is imported when it is needed, and help needs none of it."""
    outcome = well(finished([sys.executable, "-X", "importtime", *VOLSPIKE[1:], *command.split(), "--help"], tmp_path))
    imported = {name.split(".")[0] for name in re.findall(r"\| +([\w.]+)$", outcome.err, re.MULTILINE)}
    assert {"typer", "volspike"} <= imported
    assert imported & HEAVY == set()


def test_the_script_and_the_module_are_one_command(tmp_path: Path) -> None:
    """``volspike`` and ``python -m volspike`` say the same."""
    script = Path(sys.executable).with_name("volspike")
    assert well(finished([str(script), "--version"], tmp_path)) == well(volspike(tmp_path, "--version"))


def test_the_kernel_is_compiled_once(tmp_path: Path) -> None:
    """The first replay compiles and keeps; later ones compile nothing, whether Python writes its bytecode or not."""
    well(volspike(tmp_path, "simulate", "--minutes", "10", "--out", "tape.ndjson"))
    replay = [sys.executable, "-c", COUNTED, "replay", "--raw", "tape.ndjson", "--out", "f.parquet"]
    cache = str(tmp_path / "cache")

    def counts(bytecode: str | None) -> list[dict[str, int]]:
        outcome = well(finished(replay, tmp_path, NUMBA_CACHE_DIR=cache, PYTHONDONTWRITEBYTECODE=bytecode))
        told: list[dict[str, int]] = json.loads(outcome.out.splitlines()[-1])
        return told

    kept, made = counts(None)
    assert kept == {}
    assert {"step", "run"} <= set(made)
    for bytecode in (None, "1", None):
        kept, made = counts(bytecode)
        assert made == {}
        assert "run" in kept


def test_nothing_of_this_process_leaks_into_a_command() -> None:
    """Settings in the environment of whoever runs the tests change no test."""
    assert environment(API_PORT="1")["API_PORT"] == "1"
    assert {"API_PORT", "VOLSPIKE_DATA"} & set(environment(API_PORT=None)) == set()
