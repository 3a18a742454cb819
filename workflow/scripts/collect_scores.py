"""Collect all scores."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.collect import collect_scores

    collect_scores(snakemake.input.get("scores", []), snakemake.output.scores)
