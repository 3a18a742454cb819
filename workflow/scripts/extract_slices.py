"""Extract the training slices of one scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.slices.extract import extract_slices

    extract_slices(snakemake.input.volume, snakemake.input.head_mask, snakemake.output.store)
