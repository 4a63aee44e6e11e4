"""The training run: from a labelled feature file to artifacts that are checked, judged and ready to serve."""

from volspike.training.report import FoldReport, ModelReport, TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train

__all__ = ["FoldReport", "ModelReport", "TrainingReport", "TrainingRequest", "train"]
