"""Simulate one low-resolution scan."""

from headsr.logs import log_to

log_to(snakemake.log[0])

from headsr.degrade.lowres import simulate_lowres  # noqa: E402 - after the log is open
from headsr.recipes import Degradation, build  # noqa: E402

simulate_lowres(
    snakemake.input.volume,
    snakemake.output.scan,
    head_mask=snakemake.input.head_mask,
    view=snakemake.wildcards.view,
    degradation=build(Degradation, snakemake.params.recipe, snakemake.wildcards.degradation),
    degradation_name=snakemake.wildcards.degradation,
    name=snakemake.params.name,
    thickness=snakemake.params.thickness,
    source_key=snakemake.params.source_key,
)
