"""Two-dimensional training slices: extracted per scan into Zarr, listed, and sampled as crops."""
