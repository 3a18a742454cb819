"""Train one autoencoder on slices."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Model, build
    from headsr.training.autoencoder import train_autoencoder

    train_autoencoder(
        build(Model, snakemake.params.recipe, snakemake.wildcards.model),
        snakemake.input.index,
        weights=snakemake.output.weights,
        history=snakemake.output.history,
        recipe_copy=snakemake.output.recipe,
        scratch=snakemake.params.scratch,
    )
