"""What the workflow's tests share: one run of the smoke configuration on this machine."""

import pytest
from project import snakemake
from smoke import LOCAL, smoke_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory):
    """A project whose whole pipeline ran once, locally."""
    project = smoke_project(tmp_path_factory.mktemp("smoke"))
    run = snakemake(project, *LOCAL)
    assert run.returncode == 0, run.stdout[-6000:]
    return project
