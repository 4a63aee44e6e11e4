"""The model learns, and its ONNX graph gives its probabilities."""

import numpy as np
from volspike_mlp import Mlp

from volspike.models import Sample
from volspike.models.scorer import Scorer


def test_the_graph_gives_the_probabilities_of_the_network():
    """Spikes follow the first of three columns; graph and network agree within 1e-5."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 3))
    volatility = np.exp(x[:, 0])
    tau = np.full(2000, 2.0)
    names = ("realized_volatility_60s", "log_return_30s", "trade_intensity_30s")
    sample = Sample(names, x, (volatility >= tau).astype(np.int8), volatility, tau, np.ones(2000))
    model = Mlp(seed=1).fit(sample)
    probability = model.probability(x)
    assert probability[volatility >= tau].mean() > probability[volatility < tau].mean() + 0.5
    graph = model.to_onnx().SerializeToString()
    np.testing.assert_allclose(Scorer(graph, width=3, accepts_missing=False).probability(x), probability, atol=1e-5)
