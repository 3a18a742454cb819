import nibabel as nib
import numpy as np
import pytest
import torch

from headsr.acquisition.consistency import SHORT_OF_THE_NOISE, allowed, project, residuals
from headsr.acquisition.measurement import Protocol, load_study, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.evaluate.check import CheckError, check_volume, map_residual
from headsr.evaluate.checked import lost_maps, residual_path
from headsr.files import read_json, sidecar_of, write_json
from headsr.render.publish import Outputs, publish_volume
from headsr.volumes import AXES, Grid, load_volume, save_volume

AIR = 3  # samples at the far end of x, in which no head is
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
    truth[-AIR:] = 0
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
            source="sub-01/anat/sub-01_T1w.nii",
        )
        paths.append(tmp_path / "lowres" / f"sub-01_desc-{view}_T1w.nii.gz")
        head = np.ones(scan.shape, bool)
        head[-AIR:] = False
        save_measurement(paths[-1], data, scan, protocol, head)
    return paths


@pytest.fixture
def estimate(study):
    """A poor estimate and its projection, both normalised."""
    before = torch.full(HEAD.shape, 0.5) + 0.3 * torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(1))
    return before.numpy(), project(before, load_study(study).scans).volume.numpy()


def publish(folder, after, before, grid=HEAD, outcome="met"):
    outputs, record = outputs_in(folder), {"consistency": {"outcome": outcome}}
    publish_volume(after, before, grid, outputs, scale=SCALE, offset=0.0, record=record)
    return outputs


@pytest.fixture
def published(tmp_path, estimate):
    before, after = estimate
    return publish(tmp_path, after, before)


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
        for when, residual in (("before", before), ("after", after)):
            assert said[f"rms_{when}"] == pytest.approx(float(residual[:-AIR].pow(2).mean().sqrt()), rel=1e-3)
            assert said[f"rms_{when}_everywhere"] == pytest.approx(float(residual.pow(2).mean().sqrt()), rel=1e-3)
        assert said["rms_after"] <= said["allowed"] * 1.01 == pytest.approx(allowed(scan) * 1.01)
        assert said["rms_after_scan_units"] == pytest.approx(said["rms_after"] * SCALE)
        residual = load_volume(published.preview.with_name(said["map"]))
        assert residual.grid.same_as(scan.operator.scan)
        np.testing.assert_allclose(residual.data, after.numpy() * SCALE, atol=1e-2)
        sidecar = read_json(sidecar_of(published.preview.with_name(said["map"])))
        assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii"]
    assert sorted(path.name for path in published.preview.parent.glob("*srresidual*.nii.gz")) == [
        "sub-01_desc-srresidualAxial_T1w.nii.gz",
        "sub-01_desc-srresidualCoronal_T1w.nii.gz",
    ]


def test_a_volume_that_disagrees_with_its_scan_is_refused_with_the_number(tmp_path, study, estimate):
    outputs = publish(tmp_path, estimate[0], estimate[0])
    refused(outputs, study, r"axial slices.* 0\.[0-9]+ over the head \(normalised\), where their noise allows 0\.02")


@pytest.mark.parametrize("outcome", SHORT_OF_THE_NOISE)
def test_a_volume_whose_projection_said_that_it_falls_short_passes_and_says_so(tmp_path, study, estimate, outcome):
    said = read_json(check(publish(tmp_path, estimate[0], estimate[0], outcome=outcome), study))["headsr"]
    assert said["projection"]["outcome"] == outcome and said["projection"]["change"] == 0
    assert said["views"]["axial"]["rms_after"] == said["views"]["axial"]["rms_before"] > 2 * NOISE


def test_what_the_air_holds_is_stated_and_refuses_nothing(tmp_path, study, estimate):
    filled = estimate[1].copy()
    filled[-AIR:] = 0.4
    views = read_json(check(publish(tmp_path, filled, estimate[0]), study))["headsr"]["views"]
    assert views["axial"]["rms_after"] <= NOISE * 1.01 and views["axial"]["rms_after_everywhere"] > 0.1


def test_a_change_that_no_residual_explains_is_refused(tmp_path, study, estimate):
    after = estimate[1]
    outputs = publish(tmp_path, after + np.float32(0.2), after, outcome="bounded")
    refused(outputs, study, r"changed the head by 0\.2 .* explain no more than 0\.0")


def test_a_volume_below_zero_is_refused_where_scans_hold_magnitudes(tmp_path, study, estimate):
    before, after = estimate
    lower = after.copy()
    lower[-1, -1, -1] = -0.1
    refused(publish(tmp_path, lower, before), study, "goes down to -0.1 .*signed: true")


def test_a_disagreement_of_two_hundredths_of_the_noise_is_refused(tmp_path, study, estimate):
    before, after = estimate
    scans = load_study(study).scans
    residual = residuals(torch.as_tensor(after), scans)[0][:-AIR].numpy()
    # A constant is seen as that constant, so this makes the residual of the first scan 1.02 times its noise.
    worse = after + np.sign(residual.mean()) * (
        np.sqrt((1.02 * NOISE) ** 2 - residual.var()) - np.abs(residual.mean())
    ).astype(np.float32)
    refused(publish(tmp_path, worse, before), study, "noise allows")


def test_a_constant_volume_is_refused(tmp_path, study):
    flat = np.full(HEAD.shape, 0.5, np.float32)
    refused(publish(tmp_path, flat, flat), study, "every voxel is 100")


@pytest.mark.parametrize("shift", [0.02, 0.5])
def test_a_shifted_grid_is_refused(tmp_path, study, estimate, shift):
    affine = HEAD.affine.copy()
    affine[0, 3] += shift
    outputs = publish(tmp_path, estimate[1], estimate[0], Grid(HEAD.shape, affine))
    refused(outputs, study, "voxels from where it belongs")


def test_another_shape_is_refused(tmp_path, study, estimate):
    before, after = (volume[:-1] for volume in estimate)
    outputs = publish(tmp_path, after, before, Grid(after.shape, HEAD.affine))
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
    for sealed in ("seal", "metadata"):  # as in a store of before there were seals
        del root["attributes"]["headsr"][sealed]
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


def test_a_residual_that_was_deleted_is_known_and_made_again_byte_for_byte(published, study):
    output = check(published, study)
    assert lost_maps([str(output)]) == []
    axial, coronal = (residual_path(output, view) for view in ("axial", "coronal"))
    contents = {path: path.read_bytes() for path in (axial, sidecar_of(axial), coronal)}
    axial.unlink()
    sidecar_of(coronal).unlink()
    assert lost_maps([str(output)]) == [str(axial), str(sidecar_of(coronal))]
    for path in (axial, coronal):
        map_residual(published.store, study, path, check=output)
    assert lost_maps([str(output)]) == []
    assert {path: path.read_bytes() for path in contents} == contents
    with pytest.raises(CheckError, match=r"srresidualSagittal_T1w\.nii\.gz: none of its scans"):
        map_residual(published.store, study, residual_path(output, "sagittal"), check=output)
    output.write_text("{")
    axial.unlink()
    assert lost_maps([str(output), str(output.with_name("sub-02_desc-check_T1w.json"))]) == []
