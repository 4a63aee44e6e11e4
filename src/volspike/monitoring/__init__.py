"""Watching what is served: alert episodes and where they go, and what really happened after each prediction."""
