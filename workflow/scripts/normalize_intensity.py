"""Normalise the intensities of one scan."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.preprocess.intensity import normalize_intensity  # noqa: E402 - after the log is open

normalize_intensity(
    snakemake.input.scan,
    snakemake.input.head_mask,
    snakemake.output.volume,
    source_key=snakemake.params.source_key,
)
