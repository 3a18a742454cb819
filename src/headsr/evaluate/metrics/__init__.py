"""What a volume is measured by. A voxel metric takes a Comparison and returns a number, NaN where it has no meaning."""
