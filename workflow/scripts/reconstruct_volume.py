"""Make the volume of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import MethodRecipe, build
    from headsr.reconstruct.publish import reconstruct_volume
    from headsr.render.publish import Outputs

    named = {name: path for name, path in snakemake.output.items() if not name.endswith("_sidecar")}  # lie beside these
    reconstruct_volume(
        snakemake.input.lowres,
        method=build(MethodRecipe, snakemake.params.recipe, snakemake.wildcards.method),
        weights=dict(zip(snakemake.params.models, snakemake.input.weights, strict=True)),
        outputs=Outputs(**named),
    )
