"""The HTTP API: predictions, health, metrics, the event stream. Knows nothing of training."""
