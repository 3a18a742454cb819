"""Fetch one scan by its content key."""

from headsr.jobs import job

with job(snakemake):
    from headsr.sourcedata import fetch_scan

    fetch_scan(
        snakemake.output.scan,
        clone=snakemake.params.clone,
        path=snakemake.params.path,
        name=snakemake.params.name,
        key=snakemake.params.key,
        at_once=snakemake.params.at_once,
    )
