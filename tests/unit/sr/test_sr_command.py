"""Exit codes and words of ``headsr sr``."""

import warnings

import pytest

from headsr import cli


@pytest.fixture
def sr(tmp_path):
    return lambda *words: cli.main(["sr", *map(str, words)])


def test_it_says_beforehand_what_it_will_make_and_a_dry_run_makes_nothing(sr, scan, tmp_path, capsys):
    assert sr(scan(metadata={"SliceThickness": 4}), tmp_path / "out.nii.gz", "--dry-run") == 0
    said = capsys.readouterr().out
    assert (
        "axial slices 4 mm thick" in said and "48 x 50 x 48 voxels of 1 x 1 x 1 mm" in said and "GB of memory" in said
    )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gap", "0", "--method", "spline"], 0, ""),
        (["--gap", "0", "--method", "splin"], 2, "did you mean 'spline'"),
        (["--thickness", "40", "--method", "spline"], 3, "REJECTED"),
        (["--gap", "0", "--voxel", "0.25"], 3, "voxels of 0.25 x 0.25 x 0.25 mm (trained: 0.5 to 2)"),
        (["--gap", "0", "--mem-gb", "0.1"], 4, "at least"),
    ],
)
def test_the_exit_code_tells_what_became_of_it(sr, scan, tmp_path, capsys, words, code, said):
    assert sr(scan(), tmp_path / "out.nii.gz", *words) == code
    assert said in capsys.readouterr().err


def test_several_scans_of_which_one_is_a_folder_are_refused(sr, scan, tmp_path, capsys):
    assert sr(scan(), tmp_path, tmp_path / "out.nii.gz", "--gap", "0") == 3
    assert "dcm2niix" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--mem", "--nprocs", "--mem-mb"])
def test_an_option_of_another_program_is_none_of_ours_by_its_beginning(sr, scan, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as ended:
        sr(scan(), tmp_path / "out.nii.gz", option, "8000")
    assert ended.value.code == 2 and f"unrecognized arguments: {option} 8000" in capsys.readouterr().err


def test_a_warning_is_one_line_without_its_place_in_the_code(sr, scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "headsr.sr.run.foretell", lambda request: warnings.warn("did the head keep still?", stacklevel=1)
    )
    with pytest.raises(AttributeError):
        sr(scan(), tmp_path / "out.nii.gz", "--gap", "0")
    assert capsys.readouterr().err == "warning: did the head keep still?\n"
