"""Draw the rule graph."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.rulegraph import draw_rulegraph, rulegraph_of

    draw_rulegraph(rulegraph_of(snakemake.params.configfiles), snakemake.output.figure)
