"""The Compose files as Compose reads them: YAML, later files merged over earlier ones."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

DOCKER: Final = Path(__file__).resolve().parents[2] / "docker"
FILES: Final = (DOCKER / "compose.yaml", DOCKER / "compose-kraft.yaml")
DOCKERFILES: Final = (DOCKER / "Dockerfile.api", DOCKER / "Dockerfile.ingestor")

LARGEST_API_IMAGE_MB: Final = 450
BASE_IMAGE_MB: Final = 150
"""More than the base image has: that of ``python:3.13-slim`` is about 125 MB."""

Service = dict[str, Any]


def read(file: Path) -> dict[str, Any]:
    """The content of a YAML file."""
    found: dict[str, Any] = YAML(typ="safe").load(file)
    return found


def services(*files: Path) -> dict[str, Service]:
    """The services of ``files``; later files override earlier ones, mappings are merged."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = _over(merged, read(file))
    found: dict[str, Service] = merged["services"]
    return found


def words(command: str | list[str]) -> list[str]:
    """The arguments of a command; Compose splits a string like a shell."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def is_lasting(service: Service) -> bool:
    """Whether a service runs until it is stopped; the others run once and exit."""
    return bool(service["restart"] == "unless-stopped")


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {name: _over(below.get(name), above[name]) if name in above else below[name] for name in {**below, **above}}
