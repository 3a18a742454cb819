"""Check the recipe of one model."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import ModelRecipe, build
    from headsr.training.check import check_model

    check_model(
        snakemake.wildcards.model,
        {name: build(ModelRecipe, recipe, name) for name, recipe in snakemake.params.recipes.items()},
        snakemake.output.check,
        where=snakemake.params.where,
    )
