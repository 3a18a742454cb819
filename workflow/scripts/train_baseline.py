"""Train one baseline on slices."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.recipes import Model, build  # noqa: E402 - after the log is open
from headsr.training.baseline import train_baseline  # noqa: E402

train_baseline(
    build(Model, snakemake.params.recipe, snakemake.wildcards.model),
    snakemake.input.index,
    weights=snakemake.output.weights,
    history=snakemake.output.history,
    recipe_copy=snakemake.output.recipe,
    scratch=snakemake.params.scratch,
)
