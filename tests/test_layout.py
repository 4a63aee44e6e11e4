"""The layout of the package: one name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

import volspike
from volspike.cli.app import COMMANDS

PACKAGE: Final = Path(volspike.__file__).parent

SAME_ROLE: Final = {
    "app": "the parts of an interface put together",
    "evaluate": "models scored on held-out rows, in a training run and for a report",
    "metrics": "what is measured: of a process, or of a score",
    "report": "the results of an operation, and its warnings",
    "schema": "the declared form of data: feature columns, or requests and responses",
    "state": "what is saved and restored",
}
"""Module names that several packages may use, and the role that such a module plays in each of them."""


def modules() -> list[Path]:
    """Every module of the package, relative to it; a package's own ``__init__`` and ``__main__`` do not count."""
    found = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    return sorted(path for path in found if not path.stem.startswith("__"))


def test_modules_share_a_name_only_in_the_same_role() -> None:
    """Outside ``cli``, whose modules are named after commands, a module name is used once or has a stated role."""
    places = defaultdict(list)
    for path in modules():
        if path.parts[0] != "cli":
            places[path.stem].append(path.as_posix())
    shared = {name: paths for name, paths in places.items() if len(paths) > 1 and name not in SAME_ROLE}
    assert shared == {}


def test_public_classes_have_unique_names() -> None:
    """No two public classes of the package share a name."""
    places = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.as_posix()}:{node.lineno}")
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_text_files_have_an_encoding() -> None:
    """Text is read and written with a stated encoding; the default one of Windows is not UTF-8."""
    places = [
        f"{path.as_posix()}:{node.lineno}"
        for path in modules()
        for node in ast.walk(ast.parse((PACKAGE / path).read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _has_default_encoding(node.func.attr, node)
    ]
    assert places == []


def _has_default_encoding(name: str, call: ast.Call) -> bool:
    """Whether a call of ``read_text``, ``write_text``, or ``open`` in a text mode has no encoding."""
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in {"read_text", "write_text"}:
        return len(call.args) <= (name == "write_text")
    mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "b"
    return name == "open" and mode in {"r", "w", "a", "x", "r+", "w+"}


def test_every_command_is_a_module_of_its_name() -> None:
    """Each subcommand is found in the module of ``cli`` that carries its name."""
    named = {path.stem.rstrip("_").replace("_", "-") for path in modules() if path.parts[0] == "cli"}
    assert set(COMMANDS) <= named
