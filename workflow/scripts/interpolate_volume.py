"""Interpolate one volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Method, build
    from headsr.reconstruct.interpolate import interpolate_volume
    from headsr.render.publish import Outputs

    interpolate_volume(
        snakemake.input.lowres,
        method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
        outputs=Outputs(**dict(snakemake.output.items())),
    )
