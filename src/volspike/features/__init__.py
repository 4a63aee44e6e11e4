"""Features: the schema, the kernel that computes them, and the engine that runs it live and in replay."""

from volspike.features.catalogue import Feature
from volspike.features.engine import FeatureEngine, Handled, profile_of
from volspike.features.rows import ROW_FLOATS, Every, FeatureRow, FeatureRows
from volspike.features.schema import CATALOGUE, DEFAULT_WINDOWS, FAMILIES, ROW_COLUMNS, Family, FeatureSet, Scope

__all__ = [
    "CATALOGUE",
    "DEFAULT_WINDOWS",
    "FAMILIES",
    "ROW_COLUMNS",
    "ROW_FLOATS",
    "Every",
    "Family",
    "Feature",
    "FeatureEngine",
    "FeatureRow",
    "FeatureRows",
    "FeatureSet",
    "Handled",
    "Scope",
    "profile_of",
]
