"""Features: names and digest, the kernel that computes them, and the engine that runs it live and in replay."""

from volspike.features.catalogue import CATALOGUE, Feature
from volspike.features.engine import (
    ROW_FLOATS,
    DroppedEvents,
    Every,
    FeatureEngine,
    FeatureRow,
    FeatureRows,
    compile_kernel,
    profile_of,
)
from volspike.features.schema import (
    DEFAULT_WINDOWS,
    FAMILIES,
    ROW_COLUMNS,
    Family,
    FeatureSet,
    Scope,
)

__all__ = [
    "CATALOGUE",
    "DEFAULT_WINDOWS",
    "FAMILIES",
    "ROW_COLUMNS",
    "ROW_FLOATS",
    "DroppedEvents",
    "Every",
    "Family",
    "Feature",
    "FeatureEngine",
    "FeatureRow",
    "FeatureRows",
    "FeatureSet",
    "Scope",
    "compile_kernel",
    "profile_of",
]
