"""Train one segment of a latent diffusion model."""

from headsr.jobs import job

with job(snakemake):
    from headsr.recipes import Model, build
    from headsr.training.ldm import train_ldm_segment

    train_ldm_segment(
        build(Model, snakemake.params.recipe, snakemake.wildcards.model),
        snakemake.input.index,
        autoencoder=snakemake.input.autoencoder,
        previous=snakemake.input.get("previous") or None,
        segment=int(snakemake.wildcards.segment),
        state=snakemake.output.state,
        history=snakemake.output.history,
        scratch=snakemake.params.scratch,
    )
