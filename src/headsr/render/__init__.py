"""Evaluate a field, or take a finished array, and publish it: OME-Zarr with a pyramid, NIfTI preview, JSON sidecar."""
