"""The live pipeline in one process: source, recorder, feature engine, model, alerts, outcomes."""
