"""The commands for people: truthful exit codes, quick help, progress that adds up."""

import subprocess
import sys

import numpy as np
import pytest

from headsr.cli import main
from headsr.training.tracking import Synced
from headsr.volumes import Grid, save_volume


def test_help_loads_the_standard_library_and_nothing_else():
    """What makes it quick on any machine: torch alone takes seconds."""
    code = """
import sys
before = set(sys.modules)
from headsr.cli import main
try: main(["--help"])
except SystemExit: print("loaded", *(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Super-resolution of human head scans" in run.stdout
    loaded = {name.partition(".")[0] for name in run.stdout.splitlines()[-1].split()[1:]}
    assert "headsr" in loaded and loaded - sys.stdlib_module_names == {"headsr"}


def test_check_accepts_a_scan_and_rejects_a_constant(tmp_path, capsys):
    grid = Grid((4, 5, 6), np.eye(4))
    save_volume(tmp_path / "good.nii.gz", np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
    save_volume(tmp_path / "flat.nii.gz", np.ones(grid.shape, np.float32), grid)
    assert main(["check", str(tmp_path / "good.nii.gz")]) == 0
    assert main(["check", str(tmp_path / "good.nii.gz"), str(tmp_path / "flat.nii.gz")]) == 3
    said = capsys.readouterr().out
    assert "4 x 5 x 6 voxels of 1 x 1 x 1 mm" in said and f"REJECTED {tmp_path}/flat.nii.gz" in said


def test_mlflow_asks_for_every_training_of_the_configuration(monkeypatch, capsys):
    asked = {}

    def mirror(database, **what):
        asked.update(what)
        return Synced(2, 1)

    monkeypatch.setattr("headsr.training.tracking.mirror_trainings", mirror)
    assert main(["mlflow"]) == 0
    assert asked["histories"]["ldm"][-2:] == ["results/models/ldm/segment-3.jsonl", "results/models/ldm/rolling.jsonl"]
    assert {"edsr", "kl_f4", "ldm"} <= asked["recipes"].keys() & asked["keys"].keys()
    assert "2 runs written, 1 are as they were" in capsys.readouterr().out


def test_an_unknown_dataset_is_a_usage_error(capsys):
    assert main(["pin", "nowhere"]) == 2
    assert "nowhere: not in config/datasets.yaml" in capsys.readouterr().err


def test_a_missing_delta_is_a_usage_error(capsys):
    assert main(["pin", "--configfile", "absent.yaml"]) == 2
    assert "absent.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "voxel_mm", "suffixes"),
    [
        ([], (1.0, 1.0, 1.0), ("T1w",)),
        (
            ["--voxel-mm", "0.9", "--suffix", "T2w", "--suffix", "FLAIR", "--suffix", "T2w"],
            (0.9,) * 3,
            ("T2w", "FLAIR"),
        ),
        (["--voxel-mm", "1", "1", "5"], (1.0, 1.0, 5.0), ("T1w",)),
    ],
)
def test_simulate_hands_on_what_was_asked(monkeypatch, words, voxel_mm, suffixes):
    asked = {}
    monkeypatch.setattr("headsr.simulate.dataset.make_simulated_dataset", lambda *a, **k: asked.update(k, places=a))
    assert main(["simulate", "maps", "out", "--heads", "3", "--lesions", "mild", *words]) == 0
    assert asked == {
        "places": ("maps", "out"),
        "heads": 3,
        "suffixes": suffixes,
        "voxel_mm": voxel_mm,
        "lesions": "mild",
        "seed": 0,
    }


def test_simulating_from_nothing_is_a_usage_error(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), str(tmp_path / "out"), "--heads", "1"]) == 2
    assert "holds no label map" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (option, value, said)
        for option, said in (("--mem-gb", "must be a number of GB above 0"), ("--workers", "must be a whole number"))
        for value in ("inf", "nan", "0", "-1", "x", "1e308", "")
    ],
)
def test_a_number_that_makes_no_sense_is_a_usage_error_that_names_its_option(capsys, option, value, said):
    with pytest.raises(SystemExit) as ended:
        main(["render", "no.safetensors", "x.ome.zarr", option, value])
    assert ended.value.code == 2
    assert f"argument {option}: {value!r}: {said}" in capsys.readouterr().err


def test_a_scan_given_for_a_field_is_said_to_be_none_and_stays(tmp_path, capsys):
    scan, grid = tmp_path / "sub-01_T1w.nii.gz", Grid((4, 5, 6), np.eye(4))
    save_volume(scan, np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
    before = scan.read_bytes()
    assert main(["render", str(scan), str(tmp_path / "x.ome.zarr")]) == 2
    said = capsys.readouterr().err
    assert f"{scan}: is damaged, or no field" in said and "elete" not in said and scan.read_bytes() == before


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "1", "1/x", "/"])
def test_a_part_that_makes_no_sense_is_a_usage_error(capsys, part):
    assert main(["render", "no.safetensors", "x.ome.zarr", "--part", part]) == 2
    assert f"--part {part}: must be I/N" in capsys.readouterr().err


def test_what_the_schedulers_fail_with_is_said_without_a_traceback(monkeypatch, capsys):
    def refused(*_, **__):
        raise RuntimeError("SLURM takes no job from here: no controller")

    monkeypatch.setattr("headsr.render.field.render_field", refused)
    assert main(["render", "field.safetensors", "x.ome.zarr", "--scheduler", "slurm"]) == 1
    assert capsys.readouterr().err == "headsr: SLURM takes no job from here: no controller\n"
