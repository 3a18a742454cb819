"""Draw the loss curves."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.curves import draw_curves

    draw_curves(dict(zip(snakemake.params.names, snakemake.input.histories, strict=True)), snakemake.output.figure)
