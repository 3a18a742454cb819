"""Collect all scores."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.collect import collect_scores  # noqa: E402 - after the log is open

collect_scores(snakemake.input.get("scores", []), snakemake.output.scores)
