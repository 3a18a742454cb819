"""Fit the field of one head."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.inr.fit import fit_inr  # noqa: E402 - after the log is open
from headsr.recipes import Method, build  # noqa: E402

fit_inr(
    snakemake.input.lowres,
    method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
    prior=snakemake.input.get("prior") or None,
    field=snakemake.output.field,
    unprojected=snakemake.output.unprojected,
    history=snakemake.output.history,
)
