"""Training knows files: slices in, weights out. One loop for every kind of model."""
