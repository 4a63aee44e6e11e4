"""Lifecycle of the served model: retraining, challengers in shadow, promotion, rollback, history."""
