"""Fit the field of one head."""

from headsr.jobs import job

with job(snakemake):
    from headsr.inr.fit import fit_inr
    from headsr.recipes import Method, build

    fit_inr(
        snakemake.input.lowres,
        method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
        prior=snakemake.input.get("prior") or None,
        field=snakemake.output.field,
        unprojected=snakemake.output.unprojected,
        history=snakemake.output.history,
    )
