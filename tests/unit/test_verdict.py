"""`headsr check` says what the workflow and `headsr sr` then do: held to what they do."""

import gzip
import json
import re
from functools import partial

import numpy as np
import pytest

from headsr.cli import main
from headsr.degrade.lowres import simulate_lowres
from headsr.files import write_json
from headsr.preprocess import bias
from headsr.preprocess.bias import correct_bias
from headsr.recipes import Degradation
from headsr.sidecars import size_in_mm
from headsr.sr.given import Slices
from headsr.sr.outputs import result_at
from headsr.sr.run import OutsideTrainingError, Request, foretell, super_resolve
from headsr.verdict import judge, scans_at
from headsr.volumes import Grid, VolumeError, load_volume, save_volume


def head(shape, size):
    """A head of two tissues in air with noise."""
    points = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, size, strict=True)], indexing="ij")
    )
    radius = np.sqrt((points**2).sum(axis=0))
    data = np.where(radius < 20, 600.0, 0) + np.where((radius > 22) & (radius < 25), 800.0, 0)
    noise = np.random.default_rng(0).normal(0, 10, (2, *shape))
    return np.hypot(data + noise[0], noise[1]).astype(np.float32)


def pages(data):
    return b"<!DOCTYPE html><html>log in</html>"


THICK, FINE = ((56, 56, 14), (1.0, 1.0, 4.0)), ((56, 56, 56), (1.0, 1.0, 1.0))
# What is in the file, its voxels, what its sidecar says, and who takes it: the workflow as acquired, `headsr sr`.
CASES = {
    "thick with a sidecar": (head, THICK, {"SliceThickness": 4}, True, True),
    "thick without": (lambda shape, size: head(shape, size), ((56, 56, 8), (1.0, 1.0, 6.0)), None, False, False),
    "a thickness that cannot be": (head, THICK, {"SliceThickness": 40}, False, False),
    "a thickness that is written as text": (head, THICK, {"SliceThickness": "4.0"}, True, True),
    "a thickness that is no number": (head, THICK, {"SliceThickness": "4 mm"}, False, False),
    "as fine as it is wide": (head, FINE, None, True, False),
    "computed tomography": (
        lambda *grid: np.where(head(*grid) < 300, -1000, 40),
        THICK,
        {"SliceThickness": 4},
        True,
        False,
    ),
    "all one value": (lambda *grid: np.full(grid[0], 5), THICK, {"SliceThickness": 4}, False, False),
    "noise alone": (lambda *grid: np.random.default_rng(0).random(grid[0]), FINE, None, False, False),
}


@pytest.fixture
def scan(tmp_path):
    def write(make, grid, sidecar):
        path = tmp_path / "sub-01_T1w.nii.gz"
        save_volume(path, np.asarray(make(*grid), dtype=np.float32), Grid(grid[0], np.diag([*grid[1], 1.0])))
        if sidecar is not None:
            write_json(tmp_path / "sub-01_T1w.json", sidecar)
        return path

    return write


def the_workflow_takes(path, sidecar, folder):
    """Its first stage, and the one that makes an acquired scan what methods start from; what ANTs does is left out."""
    stated = size_in_mm((sidecar or {}).get("SliceThickness"))
    try:
        correct_bias(path, folder / "bias.nii.gz")
        volume = load_volume(folder / "bias.nii.gz")
        save_volume(folder / "mask.nii.gz", np.ones(volume.data.shape, np.uint8), volume.grid)
        write_json(folder / "bias.json", {"headsr": {"scale": 1.0, "offset": 0.0}, "SkullStripped": False})
        simulate_lowres(
            folder / "bias.nii.gz",
            folder / "sub-01_desc-acquired_T1w.nii.gz",
            view="acquired",
            degradation=Degradation(kind="acquired"),
            name="x",
            degradation_name="d",
            thickness=stated,
            source_key="k",
            head_mask=folder / "mask.nii.gz",
        )
    except VolumeError:
        return False
    return True


def sr_takes(path, folder):
    request = Request((path,), partial(result_at, folder / "out.nii.gz"), 4_000_000_000, Slices(), force=False)
    try:
        super_resolve(request, foretell(request), quiet=True)
    except (VolumeError, OutsideTrainingError):
        return False
    return True


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_what_then_happens(scan, tmp_path, monkeypatch, case):
    make, grid, sidecar, workflow, sr = CASES[case]
    monkeypatch.setattr(bias, "bias_field_of", lambda volume, name: np.ones(volume.data.shape, np.float32))
    path = scan(make, grid, sidecar)
    verdict = judge(path)
    said = not (verdict.refused or verdict.workflow), not (verdict.refused or verdict.sr)
    (tmp_path / "made").mkdir()
    assert said == (the_workflow_takes(path, sidecar, tmp_path / "made"), sr_takes(path, tmp_path / "made"))
    assert said == (workflow, sr), verdict.text()


def test_what_a_person_wants_to_know_of_a_scan_is_said(scan, capsys):
    path = scan(head, THICK, {"SliceThickness": 3})
    assert main(["check", str(path)]) == 0
    first, slices, shown, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"OK {path}: 56 x 56 x 14 voxels of 1 x 1 x 4 mm, intensities ")
    assert "axial slices 4 mm apart, 3 mm thick (as its sidecar says): a gap of 1 mm; sidecar sub-01_T1w.json" in slices
    assert "shows a whole head" in shown
    assert [line.strip() for line in rest] == ["the workflow: takes it", "headsr sr: takes it"]


def test_a_scan_that_one_of_the_two_refuses_can_be_used(scan, capsys):
    assert main(["check", str(scan(head, FINE, None))]) == 0
    said = capsys.readouterr().out
    assert re.search(r"headsr sr: refuses it: .*no thick slices to refine", said) and "the workflow: takes it" in said


def test_what_is_warned_of_stands_with_its_scan_and_a_name_takes_one_line(tmp_path, capsys):
    path, grid = tmp_path / "sub-01\n_T1w.nii.gz", Grid((4, 4, 3), np.diag([2, 2, 6, 1]))
    save_volume(path, np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
    write_json(tmp_path / "sub-01\n_T1w.json", {"SliceThickness": 5})
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "\n    too few samples to measure the noise" in said.out
    assert rf"OK {tmp_path}/sub-01\n_T1w.nii.gz: 4 x 4 x 3" in said.out.splitlines()[0]


def test_of_a_folder_every_scan_is_looked_at(tmp_path, capsys):
    grid = Grid(*(THICK[0], np.diag([*THICK[1], 1.0])))
    for name in (
        "sub-01/anat/sub-01_T1w",
        "sub-02/ses-a/anat/sub-02_ses-a_FLAIR",
        "sub-02/ses-a/anat/sub-02_ses-a_angio",
    ):
        save_volume(tmp_path / f"{name}.nii.gz", head(*THICK), grid)
        (tmp_path / f"{name}.json").write_text(json.dumps({"SliceThickness": 4}))
    (tmp_path / "sub-03/anat").mkdir(parents=True)
    (tmp_path / "sub-03/anat/sub-03_T1w.nii.gz").write_bytes(b"/annex/objects/SHA256E-s1--0.nii.gz\n")
    assert main(["check", str(tmp_path)]) == 3
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0].removesuffix(".nii.gz").rpartition("/")[2] for line in lines[1:]] == [
        "sub-01_T1w",
        "sub-02_ses-a_FLAIR",
        "sub-03_T1w",
    ]
    assert lines[0].startswith("left out") and "sub-02_ses-a_angio" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["OK", "OK", "REJECTED"] and "datalad get" in lines[3]


def test_a_folder_that_is_none_of_bids_is_looked_through(tmp_path):
    for name in ("a.nii.gz", "b/c.nii", "b/notes.txt", ".git/annex/objects/d.nii.gz", "b/.e.nii", "UPPER.NII.GZ"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"x"))
    assert scans_at(tmp_path).scans == tuple(tmp_path / name for name in ("UPPER.NII.GZ", "a.nii.gz", "b/c.nii"))
    with pytest.raises(ValueError, match=r"notes: holds no \.nii or \.nii\.gz"):
        (tmp_path / "notes").mkdir()
        scans_at(tmp_path / "notes")


def test_a_scan_in_the_folder_of_another_person_is_named_and_rejected(tmp_path, capsys):
    for name in ("sub-01/anat/sub-01_T1w", "sub-02/anat/sub-01_T1w"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    assert main(["check", str(tmp_path)]) == 3
    assert f"REJECTED {tmp_path}/sub-02/anat/sub-01_T1w.nii.gz: by its name it belongs into" in capsys.readouterr().out
