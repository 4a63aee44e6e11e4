"""LightGBM's trees as ONNX can hold them: split points in float32, and a branch for what is missing at every split."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
from lightgbm import Booster

_THRESHOLDS: Final = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_DECISIONS: Final = re.compile(r"^decision_type=(.*)$", re.MULTILINE)
_SIZES: Final = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)
_LEFT_WHERE_MISSING: Final = 0b1010
_TELLS_MISSING: Final = 0b1100


def in_single(trees: Booster) -> Booster:
    """The same trees with split points that float32 holds, which is what the ONNX form has, and a branch for NaN.

    A split point between two neighbours of float32 is rounded down, so that each stays on its side. Where training
    missed no value LightGBM would take a missing one for 0; here it goes left, as the smallest does.
    """
    text = _THRESHOLDS.sub(lambda found: "threshold=" + _each(found[1], _rounded_down), trees.model_to_string())
    text = _DECISIONS.sub(lambda found: "decision_type=" + _each(found[1], _with_missing), text)
    # The sizes of the trees in bytes are no longer right; without them they are read one after the other.
    return Booster(model_str=_SIZES.sub("", text))


def _each(numbers: str, change: Callable[[str], str]) -> str:
    return " ".join(change(number) for number in numbers.split())


def _rounded_down(threshold: str) -> str:
    exact = float(threshold)
    largest = float(np.finfo(np.float32).max)
    single = np.float32(np.clip(exact, -largest, largest))
    return repr(float(np.nextafter(single, np.float32(-np.inf)) if float(single) > exact else single))


def _with_missing(decision: str) -> str:
    return decision if int(decision) & _TELLS_MISSING else str(_LEFT_WHERE_MISSING)
