"""Prepare the anatomy of one label map, to be painted."""

from headsr.jobs import job

with job(snakemake):
    from headsr.simulate.store import prepare_anatomy

    prepare_anatomy(snakemake.input.dseg, snakemake.params.table, snakemake.output.anatomy)
