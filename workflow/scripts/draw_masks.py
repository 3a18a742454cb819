"""Draw the masks of one scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.masks import draw_masks

    draw_masks(
        snakemake.output.figure,
        scan=snakemake.input.scan,
        head_mask=snakemake.input.head_mask,
        brain_mask=snakemake.input.brain_mask,
        suffix=snakemake.wildcards.suffix,
        title=snakemake.params.title,
    )
