"""Copies of the shipped models with changed metadata, for tests about folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from volspike.models import DEFAULT_MODEL, METADATA_FILE, ONNX_FILE, Artifact
from volspike.models.metadata import decode_metadata


def artifact(folder: Path, model: Path = DEFAULT_MODEL, **facts: Any) -> Path:
    """A copy of a shipped model at ``folder``, with these facts changed."""
    metadata = msgspec.structs.replace(decode_metadata((model / METADATA_FILE).read_bytes()), **facts)
    Artifact.save(folder, (model / ONNX_FILE).read_bytes(), metadata, {})
    return folder
