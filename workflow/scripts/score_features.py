"""Features of the slices of one volume and of its truth."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.features import score_features

    score_features(
        {"unprojected": snakemake.input.unprojected, "projected": snakemake.input.preview},
        snakemake.input.truth,
        snakemake.input.head_mask,
        snakemake.input.weights,
        snakemake.output.features,
    )
