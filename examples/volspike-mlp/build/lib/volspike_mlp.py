"""A small neural network as a model of volspike: scikit-learn's multi-layer perceptron over scaled columns."""

from dataclasses import dataclass

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from volspike.models import Detector
from volspike.models.onnx import convert_classifier


class Mlp(Detector):
    """One hidden layer. Settings: ``hidden``, its width, and ``penalty``, the L2 penalty on the weights."""

    name = "mlp"
    defaults = {"hidden": 8, "penalty": 1e-3}

    @classmethod
    def search_space(cls, trial):
        """How flexible the network is."""
        return {
            "hidden": trial.suggest_int("hidden", 4, 32, log=True),
            "penalty": trial.suggest_float("penalty", 1e-5, 1e-1, log=True),
        }

    def learn(self, rows):
        """A network fitted to rows that have all values; ``rows.x`` is (n, f) float32."""
        network = MLPClassifier(
            hidden_layer_sizes=(self.settings["hidden"],),
            alpha=self.settings["penalty"],
            learning_rate_init=0.01,
            early_stopping=True,
            random_state=self.seed,
        )
        pipeline = make_pipeline(StandardScaler(), network)
        pipeline.fit(rows.x, rows.y, mlpclassifier__sample_weight=rows.weight)
        return MlpModel(pipeline)


@dataclass(frozen=True)
class MlpModel:
    """The fitted scaler and network."""

    pipeline: Pipeline

    def score(self, x):
        """(n,) the probability of a spike for each row of ``x`` (n, f)."""
        return self.pipeline.predict_proba(x)[:, 1].astype(np.float64)

    def importance(self):
        """(f,) the share of each column in the weights of the first layer."""
        weight = np.abs(self.pipeline[-1].coefs_[0]).sum(axis=1).astype(np.float64)
        return weight / weight.sum()

    def to_onnx(self):
        """Scaler and network as one graph, which serves without this distribution."""
        return convert_classifier(self.pipeline, self.pipeline.n_features_in_)
