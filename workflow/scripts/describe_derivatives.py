"""Describe one derivatives dataset."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Dataset, build
    from headsr.render.describe import describe_derivatives

    describe_derivatives(
        snakemake.output.description,
        dataset=build(Dataset, snakemake.params.source, snakemake.wildcards.dataset),
        name=snakemake.wildcards.dataset,
        method=snakemake.wildcards.method,
        degradation=snakemake.wildcards.degradation,
    )
