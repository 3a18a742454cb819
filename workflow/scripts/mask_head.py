"""Mask the head and the brain of one scan."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.preprocess.mask import mask_head  # noqa: E402 - after the log is open

mask_head(
    snakemake.input.scan,
    snakemake.input.transform,
    snakemake.input.template_brain,
    head_mask=snakemake.output.head,
    brain_mask=snakemake.output.brain,
)
