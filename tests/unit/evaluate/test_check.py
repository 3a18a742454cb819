import json

import nibabel as nib
import numpy as np
import pytest
import torch

from headsr.acquisition.consistency import allowed, project, residuals
from headsr.acquisition.measurement import Protocol, load_study, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.evaluate.check import CheckError, check_volume, residual_path
from headsr.files import read_json, write_json
from headsr.render.publish import Outputs, publish_volume
from headsr.volumes import AXES, Grid, load_volume, save_volume

HEAD = Grid((20, 22, 17), np.diag([1.0, 1.1, 0.9, 1.0]))
SCALE, NOISE = 200.0, 0.02
STEM = "sub-01_res-hi_desc"


def outputs_in(folder):
    return Outputs(
        folder / f"{STEM}-sr_T1w.ome.zarr" / "zarr.json",
        folder / f"{STEM}-sr_T1w.nii.gz",
        folder / f"{STEM}-sr_T1w.json",
        folder / f"{STEM}-unprojected_T1w.nii.gz",
    )


@pytest.fixture
def study(tmp_path):
    """Two thick scans of a random head, with noise, on disk."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(HEAD.shape, generator=generator)
    paths = []
    for view in ("axial", "coronal"):
        scan = HEAD.thick(AXES[view], 4)
        data = Acquisition(HEAD, scan, axis=AXES[view]).forward(truth)
        data = data + NOISE * torch.randn(data.shape, generator=generator)
        protocol = Protocol(
            view=view,
            profile="box",
            thickness=float(scan.voxel_size[AXES[view]]),
            noise=NOISE,
            head_shape=HEAD.shape,
            head_affine=HEAD.affine.tolist(),
            scale=SCALE,
            offset=0.0,
            degradation="two4",
            source_key="SHA256E-s1--0",
        )
        paths.append(tmp_path / "lowres" / f"sub-01_desc-{view}_T1w.nii.gz")
        save_measurement(paths[-1], data, scan, protocol, np.ones(scan.shape, bool))
    return paths


@pytest.fixture
def estimate(study):
    """A poor estimate and its projection, both normalised."""
    before = torch.full(HEAD.shape, 0.5) + 0.3 * torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(1))
    return before.numpy(), project(before, load_study(study).scans).numpy()


@pytest.fixture
def published(tmp_path, estimate):
    before, after = estimate
    outputs = outputs_in(tmp_path)
    publish_volume(after, before, HEAD, outputs, scale=SCALE, offset=0.0, record={})
    return outputs


def check(outputs, study, **changes):
    paths = {"store": outputs.store, "preview": outputs.preview, "unprojected": outputs.unprojected, **changes}
    output = outputs.preview.with_name("sub-01_desc-check_T1w.json")
    check_volume(paths["store"], paths["preview"], study, output, unprojected=paths["unprojected"])
    return output


def refused(outputs, study, match, **changes):
    with pytest.raises(CheckError, match=match) as caught:
        check(outputs, study, **changes)
    assert "sub-01_res-hi_desc" in str(caught.value)
    left = [path.name for path in outputs.preview.parent.iterdir()]
    assert not any("desc-check" in name or "srresidual" in name for name in left)


def test_a_sound_volume_passes_and_its_residuals_are_there(published, study, estimate):
    views = read_json(check(published, study))["headsr"]["views"]
    measured = load_study(study)
    for scan, before, after in zip(
        measured.scans, *(residuals(torch.as_tensor(v), measured.scans) for v in estimate), strict=True
    ):
        said = views[scan.view]
        assert said["rms_after"] == pytest.approx(float(after.pow(2).mean().sqrt()), rel=1e-3)
        assert said["rms_before"] == pytest.approx(float(before.pow(2).mean().sqrt()), rel=1e-3)
        assert said["rms_after"] <= said["allowed"] * 1.01 == pytest.approx(allowed(scan) * 1.01)
        assert said["rms_after_scan_units"] == pytest.approx(said["rms_after"] * SCALE)
        residual = load_volume(published.preview.with_name(said["map"]))
        assert residual.grid.same_as(scan.operator.scan)
        np.testing.assert_allclose(residual.data, after.numpy() * SCALE, atol=1e-2)
        assert json.loads((published.preview.parent / said["map"].replace(".nii.gz", ".json")).read_text())["Sources"]
    assert sorted(path.name for path in published.preview.parent.glob("*srresidual*.nii.gz")) == [
        "sub-01_desc-srresidualAxial_T1w.nii.gz",
        "sub-01_desc-srresidualCoronal_T1w.nii.gz",
    ]


def test_the_volume_before_projection_may_be_missing(published, study):
    views = read_json(check(published, study, unprojected=None))["headsr"]["views"]
    assert "rms_before" not in views["axial"] and "rms_after" in views["axial"]


def test_a_volume_that_disagrees_with_its_scan_is_refused_with_the_number(tmp_path, study, estimate):
    outputs = outputs_in(tmp_path)
    publish_volume(estimate[0], estimate[0], HEAD, outputs, scale=SCALE, offset=0.0, record={})
    refused(outputs, study, r"axial slices.* 0\.[0-9]+ \(normalised\), where their noise allows 0\.02")


def test_a_disagreement_of_two_hundredths_of_the_noise_is_refused(tmp_path, study, estimate):
    before, after = estimate
    scans = load_study(study).scans
    residual = residuals(torch.as_tensor(after), scans)[0].numpy()
    # A constant is seen as that constant, so this makes the residual of the first scan 1.02 times its noise.
    worse = after + np.sign(residual.mean()) * (
        np.sqrt((1.02 * NOISE) ** 2 - residual.var()) - np.abs(residual.mean())
    ).astype(np.float32)
    outputs = outputs_in(tmp_path)
    publish_volume(worse, before, HEAD, outputs, scale=SCALE, offset=0.0, record={})
    refused(outputs, study, "noise allows")


def test_a_constant_volume_is_refused(tmp_path, study):
    outputs, flat = outputs_in(tmp_path), np.full(HEAD.shape, 0.5, np.float32)
    publish_volume(flat, flat, HEAD, outputs, scale=SCALE, offset=0.0, record={})
    refused(outputs, study, "every voxel is 100")


@pytest.mark.parametrize("shift", [0.02, 0.5])
def test_a_shifted_grid_is_refused(tmp_path, study, estimate, shift):
    outputs = outputs_in(tmp_path)
    affine = HEAD.affine.copy()
    affine[0, 3] += shift
    publish_volume(estimate[1], estimate[0], Grid(HEAD.shape, affine), outputs, scale=SCALE, offset=0.0, record={})
    refused(outputs, study, "voxels from where it belongs")


def test_another_shape_is_refused(tmp_path, study, estimate):
    outputs, cut = outputs_in(tmp_path), [volume[:-1] for volume in estimate]
    grid = Grid(cut[0].shape, HEAD.affine)
    publish_volume(cut[1], cut[0], grid, outputs, scale=SCALE, offset=0.0, record={})
    refused(outputs, study, r"\(19, 22, 17\) voxels, not \(20, 22, 17\)")


def test_a_preview_of_another_place_or_volume_is_refused(published, study, tmp_path):
    image = nib.load(published.preview)
    data = np.asarray(image.dataobj)
    shifted = HEAD.affine.copy()
    shifted[1, 3] += 0.1
    other = tmp_path / "other" / published.preview.name
    save_volume(other, data, Grid(HEAD.shape, shifted))
    refused(published, study, "voxels from where it belongs", preview=other)
    changed = data.copy()
    changed[3, 4, 5] += 7
    save_volume(other, changed, HEAD)
    refused(published, study, "differs from level 0 .* by up to 7", preview=other)
    changed[3, 4, 5] = np.nan
    save_volume(other, changed, HEAD)
    refused(published, study, "NaN", preview=other)


def test_scale_and_translation_must_agree_with_the_affine(published, study):
    root = read_json(published.store)
    root["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]["translation"][0] += 0.5
    write_json(published.store, root)
    refused(published, study, "translation of level 0 is 0.5")


def test_an_unfinished_store_is_refused(published, study):
    published.store.unlink()
    refused(published, study, "was not finished")


def test_a_flipped_bit_in_the_store_is_refused(published, study):
    shard = published.store.parent / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refused(published, study, "cannot be read back")


def test_a_failing_check_takes_the_old_one_away(published, study):
    output = check(published, study)
    published.store.unlink()
    with pytest.raises(CheckError):
        check(published, study)
    assert not output.exists()


def test_the_residual_lies_beside_the_check():
    path = residual_path("anat/sub-01_run-1_desc-check_T2w.json", "sagittal")
    assert str(path) == "anat/sub-01_run-1_desc-srresidualSagittal_T2w.nii.gz"
    with pytest.raises(ValueError, match="desc-check"):
        residual_path("anat/check.json", "axial")
