"""Draw the rule graph."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.rulegraph import draw_rulegraph, rulegraph_of  # noqa: E402 - after the log is open

draw_rulegraph(rulegraph_of(snakemake.params.configfiles), snakemake.output.figure)
