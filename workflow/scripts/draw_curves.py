"""Draw the loss curves."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.curves import draw_curves  # noqa: E402 - after the log is open

draw_curves(dict(zip(snakemake.params.names, snakemake.input.histories, strict=True)), snakemake.output.figure)
