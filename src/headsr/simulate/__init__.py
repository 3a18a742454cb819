"""Heads whose truth is known: an anatomy around the MNI152 template, deformed, imaged, and published as a dataset."""
