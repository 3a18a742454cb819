"""List the slices that models are trained on."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.slices.store import list_training_slices  # noqa: E402 - after the log is open

list_training_slices(snakemake.params.scans, snakemake.output.index)
