"""Make the volume of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import MethodRecipe, build
    from headsr.reconstruct.publish import reconstruct_volume
    from headsr.render.publish import Outputs

    reconstruct_volume(
        snakemake.input.lowres,
        method=build(MethodRecipe, snakemake.params.recipe, snakemake.wildcards.method),
        weights=dict(zip(snakemake.params.models, snakemake.input.weights, strict=True)),
        outputs=Outputs.of_rule(snakemake.output),
    )
