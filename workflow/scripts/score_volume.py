"""Score one volume against the truth."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.score import score_volume
    from headsr.recipes import Stack, build

    score_volume(
        snakemake.input.preview,
        snakemake.input.unprojected,
        snakemake.input.truth,
        snakemake.output.score,
        unit={name: snakemake.wildcards[name] for name in ("dataset", "scan", "suffix", "method", "degradation")},
        measures=snakemake.params.measures,
        masks=dict(zip(snakemake.params.masks, snakemake.input.masks, strict=True)),
        stacks=[build(Stack, stack, "stacks") for stack in snakemake.params.stacks],
        profile=snakemake.params.profile,
        seed=snakemake.params.seed,
        weights=snakemake.input.get("weights", []),
        uncertainty=next(iter(snakemake.input.get("uncertainty", [])), None),
    )
