"""Render the field of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.render.field import render_unit
    from headsr.render.publish import Outputs

    render_unit(
        snakemake.input.field,
        Outputs(**dict(snakemake.output.items())),
        larger=snakemake.params.larger,
        chunk=snakemake.params.chunk,
        shard=snakemake.params.shard,
        scheduler=snakemake.resources.scheduler,
        workers=snakemake.resources.workers,
        memory_mb=snakemake.resources.mem_mb,
    )
