"""List the scans that a model is trained on."""

from headsr.jobs import job

with job(snakemake):
    from headsr.slices.store import list_training_data

    list_training_data(snakemake.params.scans, snakemake.output.index)
