"""Normalise the intensities of one scan."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.intensity import normalize_intensity

    normalize_intensity(
        snakemake.input.scan,
        snakemake.input.head_mask,
        snakemake.output.volume,
        source_key=snakemake.params.source_key,
    )
