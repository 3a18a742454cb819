"""Export the averaged weights of a latent diffusion model."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.recipes import Model, build  # noqa: E402 - after the log is open
from headsr.training.ldm import export_ldm  # noqa: E402

export_ldm(
    build(Model, snakemake.params.recipe, snakemake.wildcards.model),
    snakemake.input.state,
    autoencoder=snakemake.input.autoencoder,
    histories=snakemake.input.histories,
    weights=snakemake.output.weights,
    history=snakemake.output.history,
    recipe_copy=snakemake.output.recipe,
)
