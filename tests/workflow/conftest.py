"""What the workflow's tests share: one run of the smoke configuration and one of the study, on this machine."""

import shutil

import pytest
from project import snakemake
from smoke import LOCAL, smoke_project
from study import LOCAL as STUDY
from study import study_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory):
    """A project whose whole pipeline ran once, locally."""
    return finished(smoke_project(tmp_path_factory.mktemp("smoke")), *LOCAL)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory):
    """A project whose study of fourteen scans ran once, locally."""
    return finished(study_project(tmp_path_factory.mktemp("study")), *STUDY)


def finished(project, *arguments):
    """The project, after everything in it was run."""
    run = snakemake(project, *arguments)
    assert run.returncode == 0, run.stdout[-6000:]
    return project


@pytest.fixture
def study(finished_study, tmp_path):
    """A copy of the finished study, modification times and all, for one test to change."""
    return shutil.copytree(finished_study, tmp_path / "project", symlinks=True)


@pytest.fixture
def smoke(finished_project, tmp_path):
    """A copy of the finished smoke run, for one test to change."""
    return shutil.copytree(finished_project, tmp_path / "project", symlinks=True)
