"""List the slices that models are trained on."""

from headsr.jobs import job

with job(snakemake):
    from headsr.slices.store import list_training_slices

    list_training_slices(snakemake.params.scans, snakemake.output.index)
