"""Write the report."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.report import write_report
    from headsr.recipes import Recipes, build

    write_report(
        snakemake.output.report,
        title="headsr report",
        recipes=build(Recipes, snakemake.params.recipes, "report"),
        tables=snakemake.params.tables,
        scores=snakemake.input.scores,
        checks=dict(zip(snakemake.params.names, snakemake.input.checks, strict=True)),
        volumes=dict(zip(snakemake.params.names, snakemake.params.volumes, strict=True)),
        figures=dict(zip(snakemake.params.captions, snakemake.input.figures, strict=True)),
        masks=dict(zip(snakemake.params.masked, snakemake.input.masks, strict=True)),
        curves=snakemake.input.get("curves") or None,
        rulegraph=snakemake.input.rulegraph,
        published=dict(zip(snakemake.params.published, snakemake.input.get("published", []), strict=True)),
        commit=snakemake.params.commit,
        records=snakemake.params.records,
    )
