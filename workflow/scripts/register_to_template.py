"""Register one scan to the template."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.register import register_to_template

    register_to_template(
        snakemake.input.scan,
        snakemake.input.template,
        snakemake.output.transform,
        template_brain=snakemake.input.template_brain,
    )
