"""Check one finished volume."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.check import check_volume  # noqa: E402 - after the log is open

check_volume(
    snakemake.input.store,
    snakemake.input.preview,
    snakemake.input.lowres,
    snakemake.output.check,
    unprojected=snakemake.input.unprojected,
)
