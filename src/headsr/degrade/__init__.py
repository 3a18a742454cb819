"""Degradations: the fixed low-resolution scans of the test heads, and the blind pipeline of the training slices."""
