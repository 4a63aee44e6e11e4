"""What a run stood on: the feature file by its hash, and every package by its version."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import distributions
from pathlib import Path

from volspike import __version__


def file_sha256(file: Path) -> str:
    """The hash of a file's bytes, as ``sha256sum`` tells it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def packages() -> str:
    """Every installed distribution as a line of a requirements file, in order of their names."""
    told = [one.metadata for one in distributions()]
    return "".join(sorted({f"{one['Name']}=={one['Version']}\n" for one in told}, key=str.lower))


def machine() -> dict[str, str]:
    """The versions that a figure can depend on besides the packages'."""
    return {"volspike": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
