"""Make one table."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.tables import make_table
    from headsr.recipes import Table, build

    make_table(
        snakemake.wildcards.table,
        build(Table, snakemake.params.recipe, snakemake.wildcards.table),
        snakemake.input.scores,
        titles=dict(snakemake.params.titles),
        scans=snakemake.params.scans,
        published=snakemake.input.get("published") or None,
        tsv=snakemake.output.tsv,
        markdown=snakemake.output.markdown,
    )
