"""From scans to a result: same box, axes and units; nothing half-written; done means that all is as it was."""

from functools import partial

import nibabel as nib
import numpy as np
import pytest

from headsr.files import read_json
from headsr.lock import HeldError, holding
from headsr.render.store import StoreError
from headsr.sr import run
from headsr.sr.cost import ResourcesError
from headsr.sr.given import Slices
from headsr.sr.outputs import result_at
from headsr.sr.run import OutsideTrainingError, Request, foretell, super_resolve
from headsr.sr.target import Size
from headsr.volumes import load_volume


def request_of(scans, out, **how):
    how = {"slices": Slices(gap_mm=0), "memory": 4_000_000_000, "method": "spline", **how}
    return Request(scans=tuple(scans), named=partial(result_at, out), **how)


def make(scans, out, **how):
    request = request_of(scans, out, **how)
    foretold = foretell(request)
    return super_resolve(request, foretold, quiet=True), foretold


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_the_result_lies_in_the_box_of_the_scan_with_its_axes(scan, tmp_path, axes):
    path, out = scan(axes=axes), tmp_path / "out.nii.gz"
    make([path], out)
    before, after = load_volume(path), load_volume(out)
    assert nib.aff2axcodes(nib.load(out).affine) == tuple(axes)
    assert np.abs(before.grid.corners - after.grid.corners).max() < 1e-4
    header = nib.load(out).header
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-4) and header.get_xyzt_units()[0] == "mm"


def test_the_shipped_network_makes_a_result_that_agrees_with_its_scan(scan, tmp_path):
    path, out = scan(), tmp_path / "out.nii.gz"
    make([path], out, method="unrolled", report=True)
    said = read_json(tmp_path / "out.json")["headsr"]
    (view,) = said["consistency"]["views"]
    assert said["consistency"]["outcome"] in ("met", "agreed") and view["rms_after"] <= 1.01 * view["allowed"]
    assert said["IntendedUse"] == "research" and len(said["weights"]["sha256"]) == 64
    residual, uncertainty = (load_volume(tmp_path / f"out_{name}.nii.gz") for name in ("residual", "uncertainty"))
    assert residual.grid.same_as(load_volume(path).grid)
    assert residual.data.std() == pytest.approx(view["rms_after_everywhere"] * said["scale"], rel=0.1)
    assert uncertainty.data.min() > 0 and uncertainty.grid.same_as(load_volume(out).grid)
    page = (tmp_path / "out.html").read_text()
    assert "not for clinical use" in page and "http" not in page and len(page) < 2_000_000


def test_intensities_keep_their_unit(scan, tmp_path):
    bright = load_volume(scan()).data * np.float32(8)
    for name, data in (("one", None), ("other", bright)):
        make([scan(f"{name}.nii.gz", data=data)], tmp_path / f"{name}_sr.nii.gz", method="unrolled")
    one, other = (load_volume(tmp_path / f"{name}_sr.nii.gz").data for name in ("one", "other"))
    assert one[24, 25, 24] == pytest.approx(600, rel=0.2)
    assert np.abs(other - 8 * one).max() < 1e-3 * other.max()


def test_a_face_that_was_removed_stays_removed_at_its_rim_too(scan, tmp_path):
    data = load_volume(scan()).data.copy()
    data[:, 30:, :5] = 0
    make([scan("defaced.nii.gz", data=data)], tmp_path / "out.nii.gz", method="unrolled")
    result = load_volume(tmp_path / "out.nii.gz").data
    assert (result[:, 30:, :20] == 0).all()
    assert (result[20:28, 25, 18] > 0).all() and (result[20:28, 32, 21] > 0).all()
    assert read_json(tmp_path / "out.json")["headsr"]["zeroed_voxels"] == 48 * 20 * 20


@pytest.mark.parametrize(("first", "second"), [("out.nii.gz", "out.nii"), ("out.nii", "out.nii.gz")])
def test_a_result_does_not_take_the_sidecar_of_another_one(scan, tmp_path, first, second):
    path = scan()
    make([path], tmp_path / first)
    left = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=rf"{first}: lies there.*take its sidecar, out\.json"):
        make([path], tmp_path / second)
    (tmp_path / "stored.ome.zarr").mkdir()
    with pytest.raises(StoreError, match=r"stored\.ome\.zarr: lies there.*stored\.json"):
        make([path], tmp_path / "stored.nii.gz")
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == left


def test_a_place_that_cannot_be_written_in_is_known_before_what_takes_long(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "estimate_of", lambda *_, **__: pytest.fail("reconstructed"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        make([scan()], tmp_path / "file" / "out.nii.gz")
    with holding(tmp_path / ".out.nii.gz.lock", what="out"), pytest.raises(HeldError, match=r"out\.nii\.gz: is being"):
        make([scan()], tmp_path / "out.nii.gz")


def test_what_is_as_it_should_be_stays_and_all_else_is_made_again(scan, tmp_path):
    path, out = scan(), tmp_path / "out.nii.gz"
    assert make([path], out)[0] and not make([path], out)[0]
    first = out.read_bytes()
    assert make([path], out, method="average")[0] and make([path], out)[0]
    assert out.read_bytes() == first
    damaged = bytearray(first)
    damaged[len(first) // 2] ^= 1
    out.write_bytes(damaged)
    assert make([path], out)[0] and out.read_bytes() == first
    (tmp_path / "out_residual.nii.gz").unlink()
    assert make([path], out)[0]
    scan(data=load_volume(path).data + 1)
    assert make([path], out)[0]


def test_a_run_that_was_cut_short_leaves_no_result_that_claims_to_be_one(scan, tmp_path, monkeypatch):
    path, out = scan(), tmp_path / "out.nii.gz"
    make([path], out)

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run, "save_volume", full)
        with pytest.raises(OSError, match="No space"):
            make([path], out, method="average")
    assert not (tmp_path / "out.json").exists()
    assert make([path], out)[0] and not make([path], out)[0]


def test_a_file_of_somebody_s_own_and_the_scan_itself_are_never_written_over(scan, tmp_path):
    path = scan()
    own = tmp_path / "out_residual.nii.gz"
    own.write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"out_residual\.nii\.gz: is in the way"):
        make([path], tmp_path / "out.nii.gz")
    with pytest.raises(ValueError, match="lie on the scan itself"):
        make([path], path)
    assert own.read_bytes() == path.read_bytes()


def test_scans_that_the_weights_were_not_trained_on_are_refused_unless_forced(scan, tmp_path):
    path, out = scan(shape=(48, 50, 8), size=(1, 1, 10)), tmp_path / "out.nii.gz"
    with pytest.raises(OutsideTrainingError, match=r"axial: slices 10 voxels .*apart \(trained: 1.5 to 8\).*--force"):
        make([path], out, method="unrolled", size=Size(voxel_mm=[1]))
    assert not out.exists()
    make([path], out, method="unrolled", size=Size(voxel_mm=[1]), force=True)
    assert "10 voxels" in read_json(tmp_path / "out.json")["headsr"]["outside_training"][0]


def test_a_result_that_memory_does_not_take_is_refused_before_anything_is_made(scan, tmp_path):
    with pytest.raises(ResourcesError, match=r"at least .* GB .* --mem-gb"):
        foretell(request_of([scan()], tmp_path / "out.nii.gz", memory=100_000_000))


def test_several_scans_of_one_head_are_one_study(scan, tmp_path):
    first = scan("a.nii.gz", shape=(48, 50, 12), size=(1, 1, 4))
    second = scan("b.nii.gz", shape=(48, 12, 50), size=(1, 4, 1))
    make([first, second], tmp_path / "out.nii.gz", method="average")
    said = read_json(tmp_path / "out.json")["headsr"]
    assert [one["view"] for one in said["scans"]] == ["axial", "coronal"]
    assert np.abs(np.array(said["scans"][1]["alignment"]["motion"]) - np.eye(4)).max() < 0.2
    assert {"out_residual-axial.nii.gz", "out_residual-coronal.nii.gz"} <= set(said["outputs"])


def test_a_large_result_is_a_store_with_a_preview(scan, tmp_path):
    path, out = scan(), tmp_path / "out.ome.zarr"
    assert make([path], out)[0] and not make([path], out)[0]
    assert (out / "zarr.json").exists() and load_volume(tmp_path / "out.nii.gz").data.shape == (48, 50, 48)
    shard = next(out.glob("0/c/*/*/*"))
    shard.unlink()
    assert make([path], out)[0] and shard.exists()


def test_a_name_that_is_no_volume_s_and_a_method_that_there_is_not_are_refused(scan, tmp_path):
    with pytest.raises(ValueError, match=r"X\.nii\.gz"):
        make([scan()], tmp_path / "out.png")
    with pytest.raises(ValueError, match="did you mean 'tikhonov'"):
        make([scan()], tmp_path / "out.nii.gz", method="tikonov")
