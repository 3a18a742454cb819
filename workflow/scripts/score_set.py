"""Compare the slices of a method's volumes with those of their truths."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.sets import score_set

    named = snakemake.wildcards
    score_set(
        snakemake.input.features,
        snakemake.output.score,
        unit={
            "dataset": "",
            "scan": named.table,
            "suffix": snakemake.params.suffix,
            "method": named.method,
            "degradation": named.degradation,
        },
        measures=snakemake.params.measures,
        weights=snakemake.input.weights,
    )
