"""Export the averaged weights of a latent diffusion model."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Model, build
    from headsr.training.ldm import export_ldm

    export_ldm(
        build(Model, snakemake.params.recipe, snakemake.wildcards.model),
        snakemake.input.state,
        autoencoder=snakemake.input.autoencoder,
        histories=snakemake.input.histories,
        weights=snakemake.output.weights,
        history=snakemake.output.history,
        recipe_copy=snakemake.output.recipe,
    )
