"""A model of the earlier system's ten features: what its clients send to ``/predict`` is answered. See card.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

TEN_MODEL: Final = Path(__file__).parent
