"""What a run of the workflow says: plan, progress, failures, and nothing else."""

import io
import logging
import time
from types import SimpleNamespace

import pytest
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from headsr.run_output import Pace, RunOutput

ASKED = {name: False for name in ("dryrun", "verbose", "printshellcmds", "debug_dag", "show_failed_logs")}


@pytest.fixture
def output(monkeypatch):
    """A run's output, and what it has printed; nothing stands between it and the terminal."""
    monkeypatch.setattr("headsr.run_output._behind", lambda stream, interrupted: stream)

    def begin(*, begun=True, **asked):
        handler = RunOutput(SimpleNamespace(**ASKED | {"nocolor": True, "stdout": False, "quiet": set()} | asked), None)
        handler.stream = handler.as_snakemake.stream = io.StringIO()
        handler.setFormatter(DefaultFormatter(show_failed_logs=True))
        if begun and not handler.is_plain:
            say(handler, event=LogEvent.WORKFLOW_STARTED)
        return handler

    return begin


def say(handler, text="", level=logging.INFO, **extra):
    record = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    vars(record).update(extra)
    handler.handle(record)
    said = handler.stream.getvalue()
    handler.stream.truncate(0)
    handler.stream.seek(0)
    return said


def start(handler, job, rule="correct_bias", words="Correct the bias field of sub-01_T1w"):
    more = {"reason": "Missing output", "indent": False}
    return say(handler, event=LogEvent.JOB_INFO, jobid=job, rule_name=rule, rule_msg=words, **more)


def finish(handler, job):
    return say(handler, f"Finished jobid: {job}", event=LogEvent.JOB_FINISHED, job_id=job)


def test_a_line_for_the_plan_and_one_for_every_job_that_ends(output):
    run = output()
    assert say(run, "Provided cores: 2", event=LogEvent.RESOURCES_INFO) == ""
    assert say(run, "Select jobs to execute...") == ""
    stats = {"correct_bias": 3, "write_report": 1, "all": 1, "total": 5}
    assert (
        say(run, "Job stats: ...", event=LogEvent.RUN_INFO, stats=stats) == "4 jobs: 3 correct_bias, 1 write_report\n"
    )
    assert start(run, 7) == ""
    said = finish(run, 7)
    assert said.startswith("[ 25%] 0:00, about 0:0") and said.endswith(" left  Correct the bias field of sub-01_T1w\n")
    for job in (8, 9):
        start(run, job)
        finish(run, job)
    start(run, 10, "write_report", "Write the report")
    assert finish(run, 10) == "[100%] 0:00, done  Write the report\n"
    start(run, 0, "all", None)
    assert finish(run, 0) == ""
    assert say(run, "The report is r.html", for_people=True) == "The report is r.html\n"
    assert say(run, "Complete log(s): x.log") == ""


def test_what_goes_wrong_is_printed_as_ever_with_the_log(output, tmp_path):
    run, log = output(), tmp_path / "x.log"
    log.write_text("ValueError: no signal inside the head mask\n")
    error = {"rule_name": "mask_head", "rule_msg": "m", "jobid": 3, "input": [], "output": ["o"], "log": [str(log)]}
    error |= {"conda_env": None, "shellcmd": None, "aux": {}, "indent": False, "msg": "m"}
    start(run, 3)
    said = say(run, "Error in rule mask_head", logging.ERROR, event=LogEvent.JOB_ERROR, **error)
    assert run.what_runs() == ""
    ended = say(run, "Exiting because a job execution failed. Look above for error messages", logging.ERROR)
    assert ended == f"1 job failed; the same command tries again\n  Correct the bias field of sub-01_T1w: {log}\n"
    assert "Error in rule mask_head" in said and "no signal inside the head mask" in said
    assert say(run, "a split differs", logging.WARNING) == "a split differs\n"
    assert say(run, "Complete log(s): x.log") == "Complete log(s): x.log\n"


def test_after_an_interrupt_no_job_has_failed(output):
    run = output()
    said = say(run, "Terminating processes on user request, this might take some time.")
    assert said == "Interrupted: ending the jobs that run. The same command goes on.\n"
    assert say(run, "Error in rule mask_head", logging.ERROR) == ""


@pytest.mark.parametrize("asked", [{"dryrun": True}, {"verbose": True}, {"quiet": {"x"}}, {"printshellcmds": True}])
def test_who_asks_for_snakemake_s_own_output_gets_it(output, asked):
    run = output(**asked)
    say(run, "Job stats:", event=LogEvent.RUN_INFO, stats={"total": 0})
    assert "Job 7: Correct the bias field of sub-01_T1w\nReason: Missing output\n" in start(run, 7)


def test_the_time_that_is_left_is_by_rules_and_by_how_many_jobs_run_at_once():
    now = iter([0.0, 10.0, 10.0, 20.0, 20.0, 40.0, 40.0])
    pace = Pace({"short": 4, "long": 2}, clock=lambda: next(now))
    assert pace.after("short", 10) == "[ 17%] 0:10, about 0:50 left"
    assert pace.after("long", 40) == "[ 33%] 0:20, about 0:28 left"  # 3 x 10 s and 40 s, 2.5 at once
    assert pace.after("short", 10, running=30) == "[ 50%] 0:40, about 0:13 left"  # 60 s less 30, 2.25 at once
    assert Pace({"a": 1}, clock=lambda: 4000.0).after("a", 1) == "[100%] 0:00, done"


def test_what_is_no_run_prints_as_snakemake_does(output):
    lint = output(begun=False)
    assert say(lint, "Congratulations, your workflow is in a good condition!") != ""
    assert say(lint, "Config file config/config.yaml is extended by additional config") == ""
    host = {"event": LogEvent.WORKFLOW_STARTED, "quietness": "host"}
    assert say(lint, "Workflow has started!", **host) == say(lint, "Select jobs to execute...") == ""


def test_what_runs_long_is_said(output, monkeypatch):
    monkeypatch.setattr("headsr.run_output._SILENCE", (0.01, 0.02))
    run = output()
    assert run.what_runs() == ""
    for job, words in ((1, "Train edsr, segment 0"), (2, "Mask sub-01")):
        start(run, job, "train_segment", words)
    say(run, "Job stats:", event=LogEvent.RUN_INFO, stats={"train_segment": 2, "total": 2})
    deadline = time.monotonic() + 60
    while "running for 0:00  Train edsr, segment 0 (and 1 more)" not in run.stream.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.close()


def test_snakemake_finds_it_by_the_name_in_the_profile():
    assert LoggerPluginRegistry().get_plugin("headsr").log_handler is RunOutput
