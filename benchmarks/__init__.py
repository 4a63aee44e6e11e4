"""What volspike promises, measured beside its peers in one run; ``python -m benchmarks``."""
