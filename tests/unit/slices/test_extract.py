import numpy as np
import pytest
import zarr

from headsr.files import read_json, sha256_of, write_json
from headsr.slices import extract
from headsr.volumes import Grid, VolumeError, save_volume

SIZES = (1.0, 1.5, 2.0)


@pytest.fixture
def scan(tmp_path):
    """A scan whose intensities name their voxel, and a box for a head."""
    shape = (9, 40, 11)
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    mask = np.zeros(shape, np.uint8)
    mask[2:7, 4:30, 1:9] = 1
    grid = Grid(shape, np.diag([*SIZES, 1.0]))
    save_volume(tmp_path / "scan.nii.gz", data, grid)
    save_volume(tmp_path / "mask.nii.gz", mask, grid)
    write_json(tmp_path / "scan.json", {"headsr": {"scale": 1.0, "offset": 0.0, "source_key": "KEY"}})
    return tmp_path, data


def run(folder, store="a.zarr"):
    extract.extract_slices(folder / "scan.nii.gz", folder / "mask.nii.gz", folder / store / "zarr.json")
    return folder / store


def contents(store):
    return {str(path.relative_to(store)): sha256_of(path) for path in store.rglob("*") if path.is_file()}


def test_each_plane_holds_its_slices_of_the_head_in_its_layout(scan):
    folder, data = scan
    group = zarr.open_group(str(run(folder)), mode="r")
    np.testing.assert_array_equal(group["axial"][:], data.transpose(2, 1, 0)[1:9])
    np.testing.assert_array_equal(group["coronal"][:], data.transpose(1, 2, 0)[4:30])
    np.testing.assert_array_equal(group["sagittal"][:], data.transpose(0, 2, 1)[2:7])
    assert group.attrs["pixel_mm"] == {"axial": [1.5, 1.0], "coronal": [2.0, 1.0], "sagittal": [2.0, 1.5]}
    assert group.attrs["counts"] == {"axial": 8, "coronal": 26, "sagittal": 5}
    assert group.attrs["source_key"] == "KEY" and group["axial"].dtype == np.float32


def test_same_bytes_every_time_and_nothing_old_stays(scan):
    folder, _ = scan
    first = contents(run(folder))
    old = folder / "a.zarr" / "axial" / "c" / "99" / "0" / "0"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    assert contents(run(folder)) == first == contents(run(folder, "b.zarr"))


def test_the_root_changes_with_any_voxel_though_nothing_else_in_it_does(scan):
    folder, data = scan
    before = read_json(run(folder) / "zarr.json")["attributes"]
    data[4, 20, 5] += 1
    save_volume(folder / "scan.nii.gz", data, Grid(data.shape, np.diag([*SIZES, 1.0])))
    after = read_json(run(folder) / "zarr.json")["attributes"]
    assert before.pop("content") != after.pop("content")
    assert before == after


def test_an_interrupted_write_leaves_no_root(scan, monkeypatch):
    folder, _ = scan
    run(folder)
    create = zarr.create_array

    def fail(*, store, **rest):
        if store.endswith("coronal"):
            raise OSError("disk full")
        return create(store=store, **rest)

    monkeypatch.setattr(extract.zarr, "create_array", fail)
    with pytest.raises(OSError, match="disk full"):
        run(folder)
    assert not (folder / "a.zarr" / "zarr.json").exists()


def test_a_mask_without_a_head_or_of_another_grid_is_refused(scan):
    folder, _ = scan
    mask = np.zeros((9, 40, 11), np.uint8)
    mask[4, 4, 4] = 1
    save_volume(folder / "mask.nii.gz", mask, Grid(mask.shape, np.diag([*SIZES, 1.0])))
    with pytest.raises(VolumeError, match="slice shows a head"):
        run(folder)
    save_volume(folder / "mask.nii.gz", mask, Grid(mask.shape, np.eye(4)))
    with pytest.raises(VolumeError, match="not on the grid"):
        run(folder)
    assert not (folder / "a.zarr").exists()


def test_only_a_store_is_wiped(scan):
    folder, _ = scan
    with pytest.raises(ValueError, match="named by its root"):
        extract.extract_slices(folder / "scan.nii.gz", folder / "mask.nii.gz", folder / "zarr.json")
    assert (folder / "scan.nii.gz").exists()
