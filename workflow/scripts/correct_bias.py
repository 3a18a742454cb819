"""Correct the bias field of one scan."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.preprocess.bias import correct_bias  # noqa: E402 - after the log is open

correct_bias(snakemake.input.scan, snakemake.output.volume, voxel_mm=snakemake.params.voxel_mm)
