"""The compose files as Compose sees them: YAML, and one laid over the other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

DOCKER: Final = Path(__file__).resolve().parents[2] / "docker"
FILES: Final = (DOCKER / "compose.yaml", DOCKER / "compose-kraft.yaml")
DOCKERFILES: Final = (DOCKER / "Dockerfile.api", DOCKER / "Dockerfile.ingestor")

Service = dict[str, Any]


def read(file: Path) -> dict[str, Any]:
    """A file of YAML."""
    found: dict[str, Any] = YAML(typ="safe").load(file)
    return found


def services(*files: Path) -> dict[str, Service]:
    """The services of ``files``, later ones over earlier ones: mappings are merged, all else is replaced."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = _over(merged, read(file))
    found: dict[str, Service] = merged["services"]
    return found


def words(command: str | list[str]) -> list[str]:
    """A command's words; Compose splits a text as a shell does."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def is_lasting(service: Service) -> bool:
    """Whether a service is to run until it is stopped; the others do one thing and end."""
    return bool(service["restart"] == "unless-stopped")


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {name: _over(below.get(name), above[name]) if name in above else below[name] for name in {**below, **above}}
