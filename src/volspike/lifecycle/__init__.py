"""Which model is served, and when it changes: retraining, challengers, promotion, rollback."""
