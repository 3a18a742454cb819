"""Mask the head and the brain of one scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.mask import mask_head

    mask_head(
        snakemake.input.scan,
        snakemake.input.transform,
        snakemake.input.template_brain,
        head_mask=snakemake.output.head,
        brain_mask=snakemake.output.brain,
    )
