"""Take the weights of a shipped model."""

from headsr.jobs import job

with job(snakemake):
    from headsr.models.take import take_model
    from headsr.recipes import ModelRecipe, build

    take_model(
        build(ModelRecipe, snakemake.params.recipe, snakemake.wildcards.model),
        weights=snakemake.output.weights,
        history=snakemake.output.history,
    )
