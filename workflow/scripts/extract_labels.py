"""Extract the training slices of one scan's label map."""

from headsr.jobs import job

with job(snakemake):
    from headsr.slices.extract import extract_labels

    extract_labels(snakemake.input.labels, snakemake.input.head_mask, snakemake.output.store)
