"""Documents made from results: an evaluation as PDF, a model's card, and the words that both share."""
