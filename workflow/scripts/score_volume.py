"""Score one volume against the truth."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.score import score_volume

    score_volume(
        snakemake.input.preview,
        snakemake.input.unprojected,
        snakemake.input.truth,
        snakemake.input.head_mask,
        snakemake.input.brain_mask,
        snakemake.output.score,
        method=snakemake.wildcards.method,
        degradation=snakemake.wildcards.degradation,
        dataset=snakemake.wildcards.dataset,
        scan=snakemake.wildcards.scan,
        suffix=snakemake.wildcards.suffix,
        profile=snakemake.params.profile,
        seed=snakemake.params.seed,
        weights=snakemake.input.get("weights") or None,
    )
