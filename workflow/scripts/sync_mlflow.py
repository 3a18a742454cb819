"""Mirror the results to MLflow."""

from headsr.jobs import job

with job(snakemake):
    from headsr.training.tracking import mirror_results

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
