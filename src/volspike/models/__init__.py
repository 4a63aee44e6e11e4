"""Detectors of volatility spikes, and the artifact that carries one from training to serving.

Importing this package imports neither a learning library nor ONNX Runtime: getting a class from ``DETECTORS`` and
loading an artifact do.
"""

from volspike.models.artifact import METADATA_FILE, ONNX_FILE, Artifact
from volspike.models.choice import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL
from volspike.models.detector import DETECTORS, TEN_FEATURES, Detector, Sample
from volspike.models.metadata import DataFacts, Metadata, SplitFacts

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
