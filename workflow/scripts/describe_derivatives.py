"""Describe one derivatives dataset."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.recipes import Dataset, build  # noqa: E402 - after the log is open
from headsr.render.describe import describe_derivatives  # noqa: E402

describe_derivatives(
    snakemake.output.description,
    dataset=build(Dataset, snakemake.params.source, snakemake.wildcards.dataset),
    name=snakemake.wildcards.dataset,
    method=snakemake.wildcards.method,
    degradation=snakemake.wildcards.degradation,
)
