"""Training: from a labelled feature file to evaluated artifacts that are ready to serve."""

from volspike.training.report import FoldResult, ModelResult, TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train

__all__ = ["FoldResult", "ModelResult", "TrainingReport", "TrainingRequest", "train"]
