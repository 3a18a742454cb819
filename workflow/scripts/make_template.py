"""Make the whole-head template."""

from headsr.jobs import job

with job(snakemake):
    from headsr.simulate.template import make_template

    make_template(dict(snakemake.output.items()), voxel_mm=snakemake.params.voxel_mm)
