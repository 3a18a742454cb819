"""Register one scan to the template."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.preprocess.register import register_to_template  # noqa: E402 - after the log is open

register_to_template(snakemake.input.scan, snakemake.input.template, snakemake.output.transform)
