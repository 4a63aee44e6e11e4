"""A detector's settings: its defaults, with those put over them that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volspike.errors import UsageError


def settings_over(defaults: Mapping[str, Any], asked: Mapping[str, Any] | None, detector: str) -> dict[str, Any]:
    """``defaults`` with the ``asked`` values in place.

    Raises:
        UsageError: a setting that the detector does not have.
    """
    unknown = sorted(set(asked or ()) - set(defaults))
    if unknown:
        there_are = ", ".join(defaults) or "none"
        raise UsageError(f"{detector} has no setting {', '.join(unknown)}; there are {there_are}")
    return {**defaults, **(asked or {})}
