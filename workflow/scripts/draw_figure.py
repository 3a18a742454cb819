"""Draw the comparison of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.figures import draw_figure

    draw_figure(
        snakemake.output.figure,
        lowres=snakemake.input.lowres,
        volumes=dict(zip(snakemake.params.methods, snakemake.input.volumes, strict=True)),
        checks=dict(zip(snakemake.params.methods, snakemake.input.checks, strict=True)),
        truth=snakemake.input.get("truth") or None,
        head_mask=snakemake.input.head_mask,
        brain_mask=snakemake.input.brain_mask,
        suffix=snakemake.wildcards.suffix,
        title=snakemake.params.title,
    )
