"""Learning anew from what was recorded, and a better model in the place of the one that is served."""
