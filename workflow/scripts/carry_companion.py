"""Bring the lesion mask of one scan to the grid of its preprocessed volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.companion import carry_mask

    carry_mask(snakemake.input.mask, snakemake.input.volume, snakemake.output.mask)
