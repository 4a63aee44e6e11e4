"""The HTTP API: prediction, health, version, metrics and documentation; independent of training and live data."""
