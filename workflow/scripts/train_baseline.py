"""Train one baseline on slices."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Model, build
    from headsr.training.baseline import train_baseline

    train_baseline(
        build(Model, snakemake.params.recipe, snakemake.wildcards.model),
        snakemake.input.index,
        weights=snakemake.output.weights,
        history=snakemake.output.history,
        recipe_copy=snakemake.output.recipe,
        scratch=snakemake.params.scratch,
    )
