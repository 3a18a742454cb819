"""Make a lost residual map of one finished volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.check import map_residual

    map_residual(
        snakemake.input.store,
        snakemake.input.lowres,
        snakemake.output.map,
        check=snakemake.input.check,
    )
