"""The z-score rule that ships: what ``MODEL_VARIANT=baseline`` serves where none was trained. See card.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BASELINE_MODEL: Final = Path(__file__).parent
