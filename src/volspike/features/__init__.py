"""Features: names and digest, the kernel that computes them, and the engine that runs it live and in replay."""

from volspike.features.catalogue import CATALOGUE, Feature
from volspike.features.engine import (
    DroppedEvents,
    Every,
    FeatureEngine,
    FeatureRow,
    FeatureRows,
    compile_kernel,
    profile_of,
)
from volspike.features.extra import ExtraColumn, ExtraFacts, ExtraFeatures
from volspike.features.schema import (
    DEFAULT_WINDOWS,
    FAMILIES,
    ROW_COLUMNS,
    ROW_FLOATS,
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
    "ExtraColumn",
    "ExtraFacts",
    "ExtraFeatures",
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
