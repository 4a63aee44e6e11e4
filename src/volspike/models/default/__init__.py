"""The model that ships with the package, so that `volspike up` has one before its first training. See card.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_MODEL: Final = Path(__file__).parent
