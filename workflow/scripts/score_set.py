"""Compare the slices of a method's volumes with those of their truths."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.sets import score_set

    score_set(
        snakemake.input.features,
        snakemake.output.score,
        unit={
            "dataset": "",
            "scan": snakemake.wildcards.table,
            "suffix": snakemake.params.suffix,
            "method": snakemake.wildcards.method,
            "degradation": snakemake.wildcards.degradation,
        },
        measures=snakemake.params.measures,
        weights=snakemake.input.weights,
    )
