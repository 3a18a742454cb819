"""Train one segment of a model."""

from headsr.jobs import job

with job(snakemake):
    from dataclasses import replace
    from pathlib import Path

    from headsr.devices import processes_for
    from headsr.recipes import Blind, ModelRecipe, build
    from headsr.training.chain import Sources, train_segment

    train_segment(
        replace(
            build(ModelRecipe, snakemake.params.recipe, snakemake.wildcards.model),
            checkpointing=snakemake.params.checkpointing,
        ),
        Sources(
            index=Path(snakemake.input.index),
            companions=[Path(path) for path in snakemake.input.get("companions", [])],
            blind=build(Blind | None, snakemake.params.blind, snakemake.wildcards.model),
            stage=snakemake.params.stage,
        ),
        segment=int(snakemake.wildcards.segment),
        course=snakemake.params.course,
        previous=snakemake.input.get("previous") or None,
        state=snakemake.output.state,
        history=snakemake.output.history,
        scratch=snakemake.params.scratch,
        processes=processes_for(snakemake.resources.gpu),
    )
