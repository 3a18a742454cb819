"""Bring the label map of one scan to the grid of its preprocessed volume."""

from headsr.jobs import job

with job(snakemake):
    from headsr.preprocess.companion import carry_labels

    carry_labels(snakemake.input.labels, snakemake.input.volume, snakemake.output.labels)
