"""Monitoring of the served model: alerts, outcomes of predictions, performance, and drift."""
