"""Train one segment of a latent diffusion model."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.recipes import Model, build  # noqa: E402 - after the log is open
from headsr.training.ldm import train_ldm_segment  # noqa: E402

train_ldm_segment(
    build(Model, snakemake.params.recipe, snakemake.wildcards.model),
    snakemake.input.index,
    autoencoder=snakemake.input.autoencoder,
    previous=snakemake.input.get("previous") or None,
    segment=int(snakemake.wildcards.segment),
    state=snakemake.output.state,
    history=snakemake.output.history,
    scratch=snakemake.params.scratch,
)
