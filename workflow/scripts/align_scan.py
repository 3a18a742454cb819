"""Align one scan to another scan of the same head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.degrade.together import align_scan

    align_scan(
        snakemake.input.moving,
        snakemake.input.reference,
        snakemake.output.scan,
        moving_name=snakemake.params.moving_name,
        reference_name=snakemake.params.reference_name,
    )
