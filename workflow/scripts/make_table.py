"""Make one table."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.tables import make_table  # noqa: E402 - after the log is open
from headsr.recipes import Table, build  # noqa: E402

make_table(
    snakemake.wildcards.table,
    build(Table, snakemake.params.recipe, snakemake.wildcards.table),
    snakemake.input.scores,
    titles=dict(snakemake.params.titles),
    scans=snakemake.params.scans,
    tsv=snakemake.output.tsv,
    markdown=snakemake.output.markdown,
)
