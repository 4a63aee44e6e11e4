"""Programs that come with packages of the environment."""

from __future__ import annotations

import sys
from pathlib import Path


def script(name: str) -> str:
    """The path of a program in the folder of the running Python.

    Raises:
        FileNotFoundError: it is not installed; `make install-dev` does.
    """
    path = Path(sys.executable).with_name(f"{name}.exe" if sys.platform == "win32" else name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: make install-dev")
    return str(path)
