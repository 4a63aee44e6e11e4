"""Training: from a labelled feature file to evaluated artifacts that are ready to serve."""
