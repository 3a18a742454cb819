import gc

import numpy as np
import pytest
import torch
import zarr

from headsr.files import read_json, write_json
from headsr.seeds import seed_of
from headsr.slices.dataset import SliceSampler, open_plane
from headsr.slices.extract import extract_slices
from headsr.slices.store import list_training_data
from headsr.volumes import AXES, Grid, save_volume


def sampler(results, **change):
    arguments = {"split": "train", "crop": 12, "seed": 3} | change
    return SliceSampler(results / "models" / "any" / "training.json", **arguments)


def scans_of(batch):
    return {visit.scan for visit in batch.visits}


@pytest.mark.parametrize("crop", [12, 26, 70])
def test_a_batch_is_a_pure_function_of_seed_and_step(results, crop):
    first, again = sampler(results, crop=crop), sampler(results, crop=crop)
    batches = [first.batch(step, 6) for step in (0, 1, 2)]
    later = again.batch(2, 6)
    assert batches[2].images.shape == (6, 1, crop, crop) and batches[2].images.dtype == torch.float32
    for field in ("images", "pixel_mm", "planes"):
        assert torch.equal(getattr(batches[2], field), getattr(later, field))
    assert (batches[2].visits, batches[2].seeds) == (later.visits, later.seeds)
    assert torch.equal(again.batch(2, 3).images, later.images[:3])
    assert not torch.equal(batches[0].images, batches[1].images)
    assert len({seed for batch in batches for seed in batch.seeds}) == 18
    assert not torch.equal(sampler(results, crop=crop, seed=4).batch(2, 6).images, later.images)


def test_crops_show_what_their_plane_pixels_and_names_say(results):
    batch = sampler(results).batch(0, 300)
    steps = {0: 100.0, 1: 10.0, 2: 1.0}
    seen = set()
    for image, pixel, plane, visit in zip(
        batch.images[:, 0], batch.pixel_mm.tolist(), batch.planes.tolist(), batch.visits, strict=True
    ):
        along_rows, along_columns = float(image[1, 0] - image[0, 0]), float(image[0, 1] - image[0, 0])
        axes = [axis for size in pixel for axis, mm in enumerate((1.0, 2.0, 3.0)) if mm == size]
        assert {plane, *axes} == {0, 1, 2} and AXES[visit.plane] == plane
        assert [abs(along_rows), abs(along_columns)] == [steps[axis] for axis in axes]
        # Only left and right may be exchanged.
        assert all(step > 0 or axis == 0 for step, axis in zip((along_rows, along_columns), axes, strict=True))
        seen.add((plane, *axes, along_rows > 0, along_columns > 0, visit.scan))
    kinds = {kind[:5] for kind in seen}
    # axial as it is, flipped, turned, both; coronal flipped or not; sagittal never flipped.
    assert len(kinds) == 7 and {kind[5] for kind in seen} == {"demo/sub-01_T1w", "demo/sub-02_T2w"}
    assert sorted(AXES.values()) == sorted({kind[0] for kind in kinds})


def test_a_visit_names_the_slice_that_the_crop_shows(results):
    batch = sampler(results, crop=8).batch(5, 40)
    for image, visit in zip(batch.images[:, 0], batch.visits, strict=True):
        dataset, name = visit.scan.split("/")
        store = results / "slices" / dataset / name.split("_")[0] / f"{name}.zarr"
        whole = zarr.open_array(str(store / visit.plane), mode="r")[visit.number]
        assert np.isin(image.numpy(), whole).all() and visit.step == 5


def test_a_seed_belongs_to_the_visit_and_no_two_visits_are_the_same(results):
    batch = sampler(results).batch(3, 200)  # of 144 slices: some come twice
    assert len(set(batch.visits)) == len(set(batch.seeds)) == 200
    assert {visit.repeat for visit in batch.visits} >= {0, 1}
    for visit, seed in zip(batch.visits, batch.seeds, strict=True):
        assert seed == seed_of(3, "train", "degradation", *visit)


def test_a_split_chooses_the_scans(results):
    validation = sampler(results, split="val")
    assert scans_of(validation.batch(0, 20)) == {"demo/sub-03_T1w"}
    with pytest.raises(ValueError, match="no scan of split 'test'"):
        sampler(results, split="test")


def test_of_hundreds_of_scans_no_slice_is_kept_and_few_files_are_open(results, tmp_path):
    index = read_json(results / "models" / "any" / "training.json")
    first = next(entry for entry in index["stores"] if entry["split"] == "train")
    source, stores = results / "models" / "any" / first["store"], []
    for number in range(200):
        (tmp_path / f"{number}.zarr").symlink_to(source.resolve())
        stores.append({**first, "name": f"demo/sub-{number}_T1w", "store": f"{number}.zarr"})
    write_json(tmp_path / "training.json", {"stores": stores})
    many = SliceSampler(tmp_path / "training.json", split="train", crop=12, seed=3)
    seen = {visit[:2] for step in range(50) for visit in many.batch(step, 16).visits}
    assert len(seen) > open_plane.cache_info().maxsize == open_plane.cache_info().currsize
    arrays = [held for held in gc.get_objects() if type(held) is np.ndarray and held.shape == (30, 24)]
    assert len(arrays) <= 1, "the last slice that was read"


def test_a_small_slice_is_mirrored_not_stretched(results):
    image = sampler(results, crop=40).batch(0, 1).images[0, 0].numpy()
    assert set(np.unique(np.abs(np.diff(image, axis=0)))) <= {0.0, 1.0, 10.0, 100.0}


def test_crops_are_not_mostly_air_where_a_few_places_show_head(tmp_path):
    grid, head = Grid((80, 80, 4), np.eye(4)), np.zeros((80, 80, 4), np.float32)
    head[8:32, 40:64] = 0.8  # a tenth of the axial slices
    save_volume(tmp_path / "sub-01_T1w.nii.gz", head + np.float32(0.01), grid)
    save_volume(tmp_path / "mask.nii.gz", (head > 0).astype(np.uint8), grid)
    write_json(tmp_path / "sub-01_T1w.json", {"headsr": {"source_key": "KEY"}})
    mark = tmp_path / "sub-01_T1w.zarr" / "zarr.json"
    extract_slices(tmp_path / "sub-01_T1w.nii.gz", tmp_path / "mask.nii.gz", mark)
    stores = [(f"demo/sub-01_{split}", split, "T1w", str(mark)) for split in ("train", "val")]
    list_training_data(stores, tmp_path / "training.json")
    drawer = SliceSampler(tmp_path / "training.json", split="train", crop=24, seed=1)
    batch = drawer.batch(0, 300)
    axial = batch.images[batch.planes == AXES["axial"], 0]
    shares = (axial > 0.1).float().mean(dim=(1, 2))
    assert len(axial) > 80
    assert (shares >= 0.25).float().mean() > 0.75, "of one place drawn blindly it is 0.2"
    assert (shares > 0.1).float().mean() > 0.9
    assert torch.equal(axial, drawer.batch(0, 300).images[batch.planes == AXES["axial"], 0])
