"""What a run stood on can be checked by other means."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from volspike.training.tracking import describe_machine, file_sha256, list_packages


def test_the_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    """A file of more than one buffer has the hash of its content."""
    content = bytes(range(256)) * 4096
    (tmp_path / "f.parquet").write_bytes(content)
    assert file_sha256(tmp_path / "f.parquet") == hashlib.sha256(content).hexdigest()


def test_packages_are_requirements() -> None:
    """Each distribution once, with the version that is installed, in order."""
    lines = list_packages().splitlines()
    assert f"numpy=={version('numpy')}" in lines
    assert lines == sorted(set(lines), key=str.lower)
    assert set(describe_machine()) == {"volspike", "python", "platform"}
