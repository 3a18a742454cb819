"""List the anatomies that a model is trained on."""

from headsr.jobs import job

with job(snakemake):
    from headsr.simulate.index import list_anatomies

    list_anatomies(snakemake.params.anatomies, snakemake.output.index)
