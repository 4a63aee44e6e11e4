"""How far data has moved, in the three words that the decision matrix knows."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

LOW_ABOVE: Final = 0.05
HIGH_UP_TO: Final = 0.01
DRIFTED_ABOVE: Final = 0.50
ACT_ABOVE: Final = 0.75


class Severity(StrEnum):
    """Of one feature by its p-value, of a data set by the share of its features that drifted."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def is_drift(self) -> bool:
        """Whether it counts as drift."""
        return self is not Severity.LOW


def feature_severity(p_value: float) -> Severity:
    """Low above 0.05, high up to 0.01; NaN, which is a feature that could not be judged, is no drift.

    >>> feature_severity(0.05), feature_severity(0.01)
    (<Severity.MEDIUM: 'medium'>, <Severity.HIGH: 'high'>)
    """
    if p_value <= HIGH_UP_TO:
        return Severity.HIGH
    return Severity.MEDIUM if p_value <= LOW_ABOVE else Severity.LOW


def dataset_severity(share: float) -> Severity:
    """Of the share of features that drifted: a data set has drifted above one half, and is acted upon above 75 %.

    >>> dataset_severity(0.5), dataset_severity(0.75), dataset_severity(0.76)
    (<Severity.LOW: 'low'>, <Severity.MEDIUM: 'medium'>, <Severity.HIGH: 'high'>)
    """
    if share > ACT_ABOVE:
        return Severity.HIGH
    return Severity.MEDIUM if share > DRIFTED_ABOVE else Severity.LOW


def drifted_share(severities: Iterable[Severity]) -> float:
    """The share of features that drifted; 0 of none."""
    told = [severity.is_drift for severity in severities]
    return sum(told) / len(told) if told else 0.0
