"""Render the field of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.render.field import render_field
    from headsr.render.publish import Outputs

    render_field(
        snakemake.input.field,
        Outputs(**dict(snakemake.output.items())),
        workers=snakemake.threads,
        memory_mb=snakemake.resources.mem_mb,
        chunk=snakemake.params.chunk,
        shard=snakemake.params.shard,
    )
