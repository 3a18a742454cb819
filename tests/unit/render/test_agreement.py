"""What a finished render says of how well it agrees with the scans, held to what is computed from its voxels."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from known_fields import Ball

from headsr.acquisition.measurement import load_study
from headsr.cli import main
from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.lattice import level_shape
from headsr.fields.load import save_field
from headsr.files import read_json, sidecar_of, write_json
from headsr.render import store as stores
from headsr.render.agreement import means_over
from headsr.render.field import Manner, plan_render, render
from headsr.render.plan import plan_volume, target_grid
from headsr.render.publish import Outputs, outputs_beside
from headsr.volumes import Grid, cell_matrix

SMALL = Manner(chunk=16, shard=32)
PROJECTED = {"outcome": "met", "views": [{"view": "axial", "rms_after": 0.01}]}  # what the field's file says
EPS = float(np.finfo(np.float32).eps)


def network_on(grid: Grid) -> DenseField:
    rng = np.random.default_rng(0)
    levels = tuple(rng.standard_normal((2, *level_shape(grid.shape, cell)), dtype=np.float32) for cell in (4, 2))
    hidden = [rng.normal(size=size).astype(np.float32) for size in ((3, 4), (3,), (3,), ())]
    return DenseField(grid, (4, 2), tuple(level / 8 for level in levels), *hidden)


@pytest.fixture(scope="module")
def field(tiny_head) -> ConsistentField:
    """A field whose projected volume is the tiny head, in the units of its scans."""
    truth, grid = tiny_head
    made = ConsistentField.of(network_on(grid), truth, scale=800.0, offset=0.0, signed=False)
    return dataclasses.replace(made, record={"method": "trial", "consistency": PROJECTED})


def rendered(folder, field, manner=SMALL, *, scans=(), **size):
    outputs = Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")
    render(field, outputs, identity="field", grid=target_grid(field.grid, **size), scans=scans, manner=manner)
    return outputs


def means_of(stored, shape):
    means = stored.astype(np.float64)
    for axis, n in enumerate(shape):
        means = np.moveaxis(np.tensordot(cell_matrix(means.shape[axis], n), means, axes=(1, axis)), 0, axis)
    return means


def said(outputs):
    return read_json(outputs.sidecar)["headsr"]


def digest(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


class TestAtAWholeScale:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "uint16"])
    @pytest.mark.parametrize("scale", [[1], [2], [3], [4], [2, 1, 3]])
    def test_the_means_are_the_projected_volume_as_far_as_the_type_allows(self, tmp_path, field, scale, dtype):
        outputs = rendered(tmp_path, field, dataclasses.replace(SMALL, dtype=dtype), scale=scale)
        stored = stores.read_level(outputs.store)
        assert stored.min() >= 0
        worst = np.abs(means_of(stored, field.grid.shape) - field.projected * 800.0).max()
        # What rounding to the type takes from a voxel at most, it takes from a mean at most.
        storage = stores.read_storage(outputs.store)
        most = {"float32": 0, "float16": stored.max() / 2048, "uint16": 0.501 * storage.slope}[dtype]
        rounding = 2 * EPS * float(stored.max())
        assert worst <= most + rounding
        means = said(outputs)["render"]["means"]
        assert means.pop("whole_scale") is True
        assert means["largest_difference"] == pytest.approx(worst, abs=rounding)
        assert means["largest_difference_in_air_left_out"] is None

    def test_a_scan_of_the_render_is_the_scan_of_the_projected_volume(self, tmp_path, field, measure):
        scans = load_study(measure(["axial", "coronal", "sagittal"])).scans
        for scale in (1, 2, 3):
            stored = stores.read_level(rendered(tmp_path / str(scale), field, scale=[scale]).store)
            means = torch.from_numpy(means_of(stored, field.grid.shape).astype(np.float32) / 800)
            for scan in scans:
                expected = scan.operator.forward(torch.from_numpy(field.projected))
                torch.testing.assert_close(scan.operator.forward(means), expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("how", [{}, {"scale": [2]}, {"scale": [2], "box_mm": [-10, 0, 10, 9, 10, 20]}])
    def test_the_numbers_are_those_of_the_projected_volume(self, tmp_path, field, how):
        assert said(rendered(tmp_path, field, **how))["consistency"] == PROJECTED

    def test_air_that_is_left_out_is_told_apart(self, tmp_path):
        ball = Ball((40, 36, 44))
        silent = dataclasses.replace(network_on(ball.grid), output_weight=np.zeros(3, np.float32))
        field = ConsistentField.of(silent, ball.projected, scale=10.0, offset=0.0, signed=False)
        outputs = rendered(tmp_path, field, Manner(chunk=8, shard=32, skip_air=True), scale=[2])
        stored, record = stores.read_level(outputs.store), said(outputs)["render"]
        assert record["air"]["share"] > 0.03
        difference = np.abs(means_of(stored, field.grid.shape) - field.projected * 10.0)
        assert record["means"]["largest_difference"] <= 2 * EPS * stored.max()
        left_out = record["means"]["largest_difference_in_air_left_out"]
        assert left_out == pytest.approx(difference.max(), abs=1e-5)

    def test_one_bright_voxel_fits_uint16(self, tmp_path):
        grid, voxels = Grid((9, 9, 9), np.eye(4)), np.zeros((9, 9, 9), np.float32)
        voxels[4, 4, 4] = 1
        silent = dataclasses.replace(network_on(grid), output_weight=np.zeros(3, np.float32))
        field = ConsistentField.of(silent, voxels, scale=100.0, offset=0.0, signed=False)
        outputs = rendered(tmp_path, field, dataclasses.replace(SMALL, dtype="uint16"), scale=[15])
        assert stores.read_storage(outputs.store).slope == pytest.approx(180 / 65535, rel=0.01)
        assert 170 < stores.read_level(outputs.store).max() < 180

    def test_however_it_is_cut_the_voxels_are_the_same(self, tmp_path, field):
        volumes = []
        for chunk, workers in ((7, 3), (16, 1), (90, 2)):
            manner = Manner(chunk=chunk, shard=3 * chunk, workers=workers)
            volumes.append(stores.read_level(rendered(tmp_path / str(chunk), field, manner, scale=[3]).store))
        for other in volumes[1:]:
            np.testing.assert_array_equal(volumes[0], other)


class TestAtAnyOtherScale:
    def test_the_residuals_are_measured_on_what_was_rendered(self, tmp_path, field, measure):
        scans = measure(["axial", "coronal"])
        outputs = rendered(tmp_path, field, scans=scans, scale=[1.6])
        record, study = said(outputs), load_study(scans)
        means = means_of(stores.read_level(outputs.store), field.grid.shape)
        for scan, view in zip(study.scans, record["consistency"]["views"], strict=True):
            residual = scan.operator.forward(torch.from_numpy(means.astype(np.float32) / 800)) - scan.data
            assert view["rms"] == pytest.approx(scan.rms(residual), rel=1e-4)
            assert view["rms_everywhere"] == pytest.approx(scan.rms_everywhere(residual), rel=1e-4)
            assert (view["view"], view["noise"]) == (scan.view, scan.noise)
        assert record["render"]["means"]["whole_scale"] is False
        worst = np.abs(means - field.projected * 800.0).max()
        assert record["render"]["means"]["largest_difference"] == pytest.approx(worst, rel=1e-5)

    @pytest.mark.parametrize(
        ("with_scans", "how", "reason"),
        [(False, {}, "without its scans"), (True, {"box_mm": [-10, 0, 10, 9, 10, 20]}, "a box of the head")],
    )
    def test_what_is_not_measured_is_said_and_never_the_projected_volume_s(
        self, tmp_path, field, measure, with_scans, how, reason
    ):
        scans = measure(["axial"]) if with_scans else ()
        consistency = said(rendered(tmp_path / "out", field, scans=scans, scale=[1.6], **how))["consistency"]
        assert consistency["outcome"] == "not measured" and reason in consistency["reason"]
        assert "views" not in consistency

    def test_a_finished_volume_says_the_same_when_what_lies_beside_it_is_made_again(self, tmp_path, field, measure):
        scans = measure(["axial"])
        outputs = rendered(tmp_path / "out", field, scans=scans, scale=[1.6])
        before = digest(tmp_path / "out")
        outputs.sidecar.unlink()
        rendered(tmp_path / "out", field, scans=scans, scale=[1.6])
        assert digest(tmp_path / "out") == before

    def test_with_other_scans_it_is_another_volume(self, tmp_path, field, measure):
        scans = measure(["axial"])
        outputs = rendered(tmp_path / "out", field, scale=[1.6])
        assert said(outputs)["consistency"]["outcome"] == "not measured"
        rendered(tmp_path / "out", field, scans=scans, scale=[1.6])
        assert said(outputs)["consistency"]["outcome"] == "measured on this volume"

    def test_scans_of_another_head_are_refused_before_anything_is_written(self, tmp_path, field, measure):
        (scan,) = measure(["axial"])
        protocol = read_json(sidecar_of(scan))
        protocol["headsr"]["scale"] = 801.0
        write_json(sidecar_of(scan), protocol)
        with pytest.raises(ValueError, match=r"axial_T1w\.nii\.gz: is not of the head that the field was fitted to"):
            rendered(tmp_path / "out", field, scans=[scan], scale=[1.6])
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("scale", [[1.3], [0.6], [2.4, 1, 0.5], [3]])
def test_means_over_the_head_are_of_the_voxels_shares(tmp_path, field, scale, workers):
    outputs = rendered(tmp_path, field, scale=scale)
    volume = plan_volume(target_grid(field.grid, scale=scale), stores.read_storage(outputs.store), chunk=5, shard=10)
    planes, means = zip(*means_over(field.grid, volume, outputs.store, workers=workers), strict=True)
    assert [p.start for p in planes] == [0, *(p.stop for p in planes[:-1])] and planes[-1].stop == field.grid.shape[2]
    expected = means_of(stores.read_level(outputs.store), field.grid.shape)
    np.testing.assert_allclose(np.concatenate(means, axis=2), expected, atol=4 * EPS * expected.max())


def test_a_plan_counts_what_comparing_takes(field):
    large = dataclasses.replace(
        field,
        network=network_on(grid := Grid((200, 200, 200), np.eye(4))),
        projected=np.zeros(grid.shape, np.float32),
        carried=np.zeros(grid.shape, np.float32),
    )

    def gigabytes(scale, scans):
        said = plan_render(large, "a", grid=target_grid(grid, scale=[scale]), scans=scans, manner=SMALL)
        return float(said.split(" GB of memory")[0].split()[-1])

    assert gigabytes(1.5, ["a", "b"]) > gigabytes(1.5, []) + 0.3
    assert gigabytes(2, ["a", "b"]) == pytest.approx(gigabytes(2, []), abs=0.02)


def test_the_command_takes_the_scans(tmp_path, field, measure):
    scans = list(map(str, measure(["axial", "coronal"])))
    save_field(tmp_path / "field.safetensors", field)
    out = tmp_path / "finer.ome.zarr"
    assert main(["render", str(tmp_path / "field.safetensors"), str(out), "--voxel", "1.7", "--scans", *scans]) == 0
    assert [view["view"] for view in said(outputs_beside(out))["consistency"]["views"]] == ["axial", "coronal"]
