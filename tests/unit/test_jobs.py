"""What a job leaves behind: its output in its log, and a record of what it made when it ends well."""

import subprocess
import sys

from headsr.provenance import read_record

# In a process of its own: a job redirects its process's output for good.
JOB = """
import logging, sys, warnings
from types import SimpleNamespace
from headsr.jobs import job
with job(SimpleNamespace(
    rule="fit", log=["results/logs/fit/x.log"], config={"results": "results"}, params={"stage": 3},
    input=[], output=["out"],
)):
    open("out", "w").write("made")
    logging.info("step 1")
    for _ in range(2):
        logging.warning("try %d", 2)
        warnings.warn("steep: very")
    print("done")
    if len(sys.argv) > 1:
        raise ValueError("no")
"""


def run(folder, *words):
    return subprocess.run([sys.executable, "-c", JOB, *words], cwd=folder, capture_output=True, text=True)


def test_warnings_are_in_the_log_and_once_each_in_the_record(tmp_path):
    ended = run(tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    log = (tmp_path / "results/logs/fit/x.log").read_text()
    assert "step 1" in log and "done\n" in log and log.count("try 2") == 2 and "UserWarning: steep: very" in log
    record = read_record(tmp_path / "results/records/fit/x.json")
    assert (record.rule, record.stage, set(record.outputs)) == ("fit", 3, {"../out"})
    assert record.warnings == ["try 2", "UserWarning: steep: very"]


def test_a_job_that_fails_leaves_no_record(tmp_path):
    assert run(tmp_path, "fail").returncode == 1
    assert "ValueError: no" in (tmp_path / "results/logs/fit/x.log").read_text()
    assert not (tmp_path / "results/records").exists()
