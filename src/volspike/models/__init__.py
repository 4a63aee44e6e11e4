"""Detectors of volatility spikes, and the artifact that carries one from training to serving.

Importing this package loads neither a learning library nor ONNX Runtime: those come with the first detector
taken from ``DETECTORS`` and the first artifact loaded.
"""

from volspike.models.artifact import METADATA_FILE, ONNX_FILE, Artifact
from volspike.models.default import DEFAULT_MODEL
from volspike.models.detector import DETECTORS, TEN_FEATURES, Detector, Sample
from volspike.models.fallback import BASELINE_MODEL
from volspike.models.metadata import DataFacts, Metadata, SplitFacts
from volspike.models.simulated import SIMULATED_MODEL
from volspike.models.ten import TEN_MODEL

__all__ = [
    "BASELINE_MODEL",
    "DEFAULT_MODEL",
    "DETECTORS",
    "METADATA_FILE",
    "ONNX_FILE",
    "SIMULATED_MODEL",
    "TEN_FEATURES",
    "TEN_MODEL",
    "Artifact",
    "DataFacts",
    "Detector",
    "Metadata",
    "Sample",
    "SplitFacts",
]
