"""Extract the training slices of one scan."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.slices.extract import extract_slices  # noqa: E402 - after the log is open

extract_slices(snakemake.input.volume, snakemake.input.head_mask, snakemake.output.store)
