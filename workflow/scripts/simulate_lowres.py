"""Simulate one low-resolution scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.degrade.lowres import simulate_lowres
    from headsr.recipes import Degradation, build

    simulate_lowres(
        snakemake.input.volume,
        snakemake.output.scan,
        head_mask=snakemake.input.head_mask,
        view=snakemake.wildcards.view,
        degradation=build(Degradation, snakemake.params.recipe, snakemake.wildcards.degradation),
        degradation_name=snakemake.wildcards.degradation,
        name=snakemake.params.name,
        thickness=snakemake.params.thickness,
        source_key=snakemake.params.source_key,
        signed=snakemake.params.signed,
        source_path=snakemake.params.source_path,
    )
