"""The whole plan of a configuration, job by job, as Snakemake sees it, whether or not anything has to run.

Snakemake's API executes plans and does not hand them out, so private methods of the pinned version are used here, and
nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsr.provenance import plain_params

_PROFILE = "profiles/default"  # Snakemake reads it beside every other; what decides reruns stands there


class PlanError(ValueError):
    """The workflow cannot be planned. The message says why."""


@dataclass(frozen=True)
class PlannedJob:
    """One job of the plan, with paths as in the rules.

    ``stage`` holds the versions (headsr.stages), ``params`` what else decides reruns; ``temporary`` are the outputs
    that Snakemake deletes when nothing needs them any more, and ``runs`` says whether the next run runs it.
    """

    rule: str
    stage: dict[str, int]
    params: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    temporary: frozenset[str]
    log: str
    runs: bool


def planned_jobs(configfiles: Sequence[str | os.PathLike[str]] = ()) -> list[PlannedJob]:
    """Every job behind the workflow's first target, each after those whose output it reads.

    Runs in the project's folder, as ``snakemake --configfile ...`` does. Raises PlanError with Snakemake's words.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.cli import get_argument_parser
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    quiet = OutputSettings(quiet={Quietness.ALL})
    as_run = get_argument_parser(profiles=[_PROFILE]).parse_args([])
    with SnakemakeApi(quiet) as api:
        try:
            flow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(configfiles=[Path(path) for path in configfiles]),
            )
            dag = flow.dag(
                DAGSettings(
                    rerun_triggers=as_run.rerun_triggers,
                    max_checksum_file_size=as_run.max_checksum_file_size,
                    force_incomplete=as_run.rerun_incomplete,
                )
            )
            workflow = dag.workflow_api._workflow
            workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
            workflow._build_dag()
        except Exception as error:  # Snakemake's own errors, and whatever a Snakefile may raise
            raise PlanError(f"the workflow cannot be planned: {error}") from error
        return list(_jobs(workflow))


def _jobs(workflow: Any) -> Iterator[PlannedJob]:
    for level in workflow.dag.toposorted():
        for job in level:
            if job.rule.norun:  # a target: it makes nothing itself
                continue
            tracked = {n: value for n, value in job.params.items() if not _derived(job.rule, n)}
            params = plain_params(tracked)
            yield PlannedJob(
                rule=job.rule.name,
                stage=params.pop("stage"),
                params=params,
                inputs=tuple(job.input),
                outputs=tuple(job.output),
                temporary=frozenset(job.temp_output),
                log=str(job.log[0]),
                runs=workflow.dag.needrun(job),
            )


def _derived(rule: Any, name: str) -> bool:
    """Whether Snakemake leaves a parameter out when it compares: one that follows from inputs, outputs or resources."""
    return rule._is_deriving_function(dict(rule.params._allitems())[name])
