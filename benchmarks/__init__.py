"""Benchmarks: each target compared with a measurement and a reference of the same run; ``python -m benchmarks``."""
