"""Mirror the results to MLflow."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.training.tracking import mirror_results  # noqa: E402 - after the log is open

mirror_results(
    snakemake.params.database,
    record=snakemake.output.record,
    experiment=snakemake.params.experiment,
    histories=dict(zip(snakemake.params.histories, snakemake.input.get("histories", []), strict=True)),
    recipes=snakemake.params.recipes,
    keys=snakemake.params.content_keys,
    scores=snakemake.input.get("scores", []),
    checks=dict(zip(snakemake.params.checks, snakemake.input.checks, strict=True)),
    commit=snakemake.params.commit,
)
