"""Correct the bias field of one scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.bias import correct_bias

    correct_bias(snakemake.input.scan, snakemake.output.volume, voxel_mm=snakemake.params.voxel_mm)
