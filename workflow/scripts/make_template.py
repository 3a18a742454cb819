"""Make the whole-head template."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.simulate.template import make_template  # noqa: E402 - after the log is open

make_template(dict(snakemake.output.items()), voxel_mm=snakemake.params.voxel_mm)
