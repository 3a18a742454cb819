"""Check one finished volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.check import check_volume

    check_volume(
        snakemake.input.store,
        snakemake.input.preview,
        snakemake.input.lowres,
        snakemake.output.check,
        unprojected=snakemake.input.unprojected,
    )
