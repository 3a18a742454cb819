import subprocess
import sys

import pytest

from headsr.preprocess import ants_process
from headsr.preprocess.ants_process import AntsError, run_ants

CRASH = "import os, sys; os.kill(os.getpid(), 11)"
CRASH_ONCE = """
import os, pathlib, sys
seen = pathlib.Path(sys.argv[2])
if not seen.exists():
    seen.touch()
    os.kill(os.getpid(), 11)
pathlib.Path(sys.argv[3]).write_text("done")
"""


def child(monkeypatch, program):
    monkeypatch.setattr(ants_process, "_child_command", lambda: [sys.executable, "-c", program])


def test_a_crash_is_a_named_error_after_one_more_try(tmp_path, monkeypatch, capfd):
    child(monkeypatch, CRASH)
    with pytest.raises(AntsError, match=r"demo/sub-01.*N4BiasFieldCorrection.*signal 11, twice"):
        run_ants("N4BiasFieldCorrection", [], output=tmp_path / "out", scan="demo/sub-01_T1w")
    assert capfd.readouterr().out.count("trying once more") == 1


def test_a_crash_that_does_not_repeat_costs_nothing(tmp_path, monkeypatch):
    child(monkeypatch, CRASH_ONCE)
    arguments = [str(tmp_path / "seen"), str(tmp_path / "out")]
    run_ants("N4BiasFieldCorrection", arguments, output=tmp_path / "out", scan="x")
    assert (tmp_path / "out").read_text() == "done"


@pytest.mark.parametrize(
    ("program", "message"),
    [("import sys; print('bad direction'); sys.exit(3)", "exit code 3.*bad direction"), ("pass", "exit code 0")],
)
def test_failing_or_writing_nothing_is_an_error(tmp_path, monkeypatch, program, message):
    child(monkeypatch, program)
    with pytest.raises(AntsError, match=f"(?s){message}"):
        run_ants("antsRegistration", [], output=tmp_path / "out", scan="x")


def test_the_real_library_answers_and_its_child_stays_small():
    program = (
        "import sys; from headsr.preprocess import ants_process as a; code = a.main(['antsRegistration', '--version']);"
        "sys.exit(code or bool({'ants', 'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ANTs Version" in done.stdout


def test_only_the_two_programs_are_run():
    with pytest.raises(SystemExit, match="antsApplyTransforms"):
        ants_process.main(["antsApplyTransforms"])


def test_the_parent_loads_neither_ants_nor_torch():
    program = (
        "import sys; import headsr.preprocess.bias, headsr.preprocess.register, headsr.preprocess.mask,"
        "headsr.preprocess.intensity; print({'ants', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
