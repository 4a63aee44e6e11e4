"""Features: the schema, the kernel that computes them, and the engine that runs it live and in replay."""

from volspike.features.engine import FeatureEngine, Handled, profile_of
from volspike.features.rows import ROW_FLOATS, Every, FeatureRow, FeatureRows
from volspike.features.schema import DEFAULT_WINDOWS, FAMILIES, ROW_COLUMNS, Family, FeatureSet

__all__ = [
    "DEFAULT_WINDOWS",
    "FAMILIES",
    "ROW_COLUMNS",
    "ROW_FLOATS",
    "Every",
    "Family",
    "FeatureEngine",
    "FeatureRow",
    "FeatureRows",
    "FeatureSet",
    "Handled",
    "profile_of",
]
