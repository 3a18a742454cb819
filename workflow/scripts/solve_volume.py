"""Solve one volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Method, build
    from headsr.reconstruct.tikhonov import solve_volume
    from headsr.render.publish import Outputs

    solve_volume(
        snakemake.input.lowres,
        method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
        outputs=Outputs(**dict(snakemake.output.items())),
    )
