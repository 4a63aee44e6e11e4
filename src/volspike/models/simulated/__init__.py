"""The model that watches the simulated exchange: trained on its market, and worth nothing on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SIMULATED_MODEL: Final = Path(__file__).parent
