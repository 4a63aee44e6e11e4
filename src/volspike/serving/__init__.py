"""The HTTP face: a model's probabilities, its health and its metrics. Knows nothing of training."""
