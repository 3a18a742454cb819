"""Upsample one volume by a 2-D network."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Method, build
    from headsr.reconstruct.slicewise import upsample_volume
    from headsr.render.publish import Outputs

    upsample_volume(
        snakemake.input.lowres,
        method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
        weights=snakemake.input.weights,
        outputs=Outputs(**dict(snakemake.output.items())),
    )
