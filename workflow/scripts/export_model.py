"""Export the averaged weights of a model."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import ModelRecipe, build
    from headsr.training.chain import export_model

    export_model(
        build(ModelRecipe, snakemake.params.recipe, snakemake.wildcards.model),
        snakemake.input.state,
        companions=snakemake.input.get("companions", []),
        histories=snakemake.input.histories,
        weights=snakemake.output.weights,
        history=snakemake.output.history,
        recipe_copy=snakemake.output.recipe,
        datasets=snakemake.params.datasets,
        citation=snakemake.params.citation,
    )
