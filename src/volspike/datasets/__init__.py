"""Feature files: built from tapes, labelled, consolidated, loaded and split."""

from volspike.datasets.dataset import Dataset, load_dataset
from volspike.datasets.feature_file import FeatureFacts
from volspike.datasets.splits import SPLIT_METHODS, Split, split

__all__ = ["SPLIT_METHODS", "Dataset", "FeatureFacts", "Split", "load_dataset", "split"]
