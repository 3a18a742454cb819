"""Interpolate one volume."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.recipes import Method, build  # noqa: E402 - after the log is open
from headsr.reconstruct.interpolate import interpolate_volume  # noqa: E402
from headsr.render.publish import Outputs  # noqa: E402

interpolate_volume(
    snakemake.input.lowres,
    method=build(Method, snakemake.params.recipe, snakemake.wildcards.method),
    outputs=Outputs(**dict(snakemake.output.items())),
)
