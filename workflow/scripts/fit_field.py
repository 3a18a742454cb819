"""Fit the field of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import MethodRecipe, build
    from headsr.reconstruct.publish import reconstruct_field

    reconstruct_field(
        snakemake.input.lowres,
        method=build(MethodRecipe, snakemake.params.recipe, snakemake.wildcards.method),
        weights=dict(zip(snakemake.params.models, snakemake.input.weights, strict=True)),
        field=snakemake.output.field,
        unprojected=snakemake.output.unprojected,
        history=snakemake.output.history,
    )
