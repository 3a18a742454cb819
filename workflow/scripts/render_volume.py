"""Render the field of one head."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.render.field import render_field  # noqa: E402 - after the log is open
from headsr.render.publish import Outputs  # noqa: E402

render_field(
    snakemake.input.field,
    Outputs(**dict(snakemake.output.items())),
    workers=snakemake.threads,
    memory_mb=snakemake.resources.mem_mb,
    chunk=snakemake.params.chunk,
    shard=snakemake.params.shard,
)
