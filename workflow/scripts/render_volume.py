"""Render the field of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.render.field import render_unit
    from headsr.render.publish import Outputs

    render_unit(
        snakemake.input.field,
        Outputs.of_rule(snakemake.output),
        scans=snakemake.input.lowres,
        larger=snakemake.params.larger,
        chunk=snakemake.params.chunk,
        shard=snakemake.params.shard,
        scheduler=snakemake.resources.scheduler,
        workers=snakemake.resources.workers,
        # A render keeps within 1.1 times of what it is given, and a SLURM job also holds two processes of Snakemake of
        # up to 200 MB each.
        memory_mb=int((snakemake.resources.mem_mb - 400) / 1.1),
    )
