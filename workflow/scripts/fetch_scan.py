"""Fetch one scan by its content key."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.sourcedata import fetch_scan  # noqa: E402 - after the log is open

fetch_scan(
    snakemake.output.scan,
    clone=snakemake.params.clone,
    name=snakemake.params.name,
    key=snakemake.params.key,
    at_once=snakemake.params.at_once,
)
