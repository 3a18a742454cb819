"""Features of the slices of one volume and of its truth."""

from headsr.jobs import job

with job(snakemake):
    from headsr.evaluate.features import score_features

    files = snakemake.input
    score_features(
        {"unprojected": files.unprojected, "projected": files.preview},
        files.truth,
        files.head_mask,
        files.weights,
        snakemake.output.features,
    )
