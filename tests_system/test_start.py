"""Start-up of the commands: imports, and the cached machine code of the kernel."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests_system.processes import VOLSPIKE, environment, run_process, run_volspike, succeeded
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
loaded = {value.py_func.__qualname__: sum(value.stats.cache_hits.values()) for value in compiled.values()}
compiled_now = {value.py_func.__qualname__: sum(value.stats.cache_misses.values()) for value in compiled.values()}
print(json.dumps([{name: count for name, count in each.items() if count} for each in (loaded, compiled_now)]))
"""
"""Runs a command, then prints which functions were loaded from numba's cache and which were compiled."""


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    """``--help`` imports none of the libraries for computing, training or serving."""
    outcome = succeeded(
        run_process([sys.executable, "-X", "importtime", *VOLSPIKE[1:], *command.split(), "--help"], tmp_path)
    )
    imported = {name.split(".")[0] for name in re.findall(r"\| +([\w.]+)$", outcome.err, re.MULTILINE)}
    assert {"typer", "volspike"} <= imported
    assert imported & HEAVY == set()


def test_script_and_module_are_the_same_command(tmp_path: Path) -> None:
    """``volspike`` and ``python -m volspike`` print the same."""
    script = Path(sys.executable).with_name("volspike")
    assert succeeded(run_process([str(script), "--version"], tmp_path)) == succeeded(
        run_volspike(tmp_path, "--version")
    )


def test_kernel_is_compiled_once(tmp_path: Path) -> None:
    """The first replay compiles the kernel and caches it; later ones load it, whether Python writes bytecode or not."""
    succeeded(run_volspike(tmp_path, "simulate", "--minutes", "10", "--out", "tape.ndjson"))
    replay = [sys.executable, "-c", COUNTED, "replay", "--raw", "tape.ndjson", "--out", "f.parquet"]
    cache = str(tmp_path / "cache")

    def counts(bytecode: str | None) -> list[dict[str, int]]:
        outcome = succeeded(run_process(replay, tmp_path, NUMBA_CACHE_DIR=cache, PYTHONDONTWRITEBYTECODE=bytecode))
        functions: list[dict[str, int]] = json.loads(outcome.out.splitlines()[-1])
        return functions

    loaded, compiled = counts(None)
    assert loaded == {}
    assert "run" in compiled
    for bytecode in (None, "1", None):
        loaded, compiled = counts(bytecode)
        assert compiled == {}
        assert "run" in loaded


def test_commands_do_not_inherit_settings() -> None:
    """Settings in the environment of the test run do not reach a command."""
    assert environment(API_PORT="1")["API_PORT"] == "1"
    assert {"API_PORT", "VOLSPIKE_DATA"} & set(environment(API_PORT=None)) == set()
