"""Write the report."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.evaluate.report import write_report  # noqa: E402 - after the log is open
from headsr.recipes import Recipes, build  # noqa: E402

write_report(
    snakemake.output.report,
    title="headsr report",
    recipes=build(Recipes, snakemake.params.recipes, "report"),
    tables=snakemake.params.tables,
    scores=snakemake.input.scores,
    checks=dict(zip(snakemake.params.names, snakemake.input.checks, strict=True)),
    figures=dict(zip(snakemake.params.captions, snakemake.input.figures, strict=True)),
    curves=snakemake.input.get("curves") or None,
    rulegraph=snakemake.input.rulegraph,
    commit=snakemake.params.commit,
)
