"""Documents generated from results: the evaluation as PDF, and model cards."""
