import numpy as np
import pytest
import torch

from headsr.slices.dataset import SliceSampler
from headsr.volumes import AXES


def sampler(results, **change):
    arguments = {"suffixes": ("T1w", "T2w"), "split": "train", "crop": 12, "seed": 3} | change
    return SliceSampler(results / "slices" / "training.json", root=results, **arguments)


@pytest.mark.parametrize("crop", [12, 26, 70])
def test_a_batch_is_a_pure_function_of_seed_and_step(results, crop):
    first, again = sampler(results, crop=crop), sampler(results, crop=crop)
    batches = [first.batch(step, 6) for step in (0, 1, 2)]
    later = again.batch(2, 6)
    assert batches[2].images.shape == (6, 1, crop, crop) and batches[2].images.dtype == torch.float32
    for field in ("images", "pixel_mm", "planes"):
        assert torch.equal(getattr(batches[2], field), getattr(later, field))
    assert (batches[2].names, batches[2].seeds) == (later.names, later.seeds)
    assert torch.equal(again.batch(2, 3).images, later.images[:3])
    assert not torch.equal(batches[0].images, batches[1].images)
    assert len({seed for batch in batches for seed in batch.seeds}) == 18
    assert not torch.equal(sampler(results, crop=crop, seed=4).batch(2, 6).images, later.images)


def test_crops_show_what_their_plane_pixels_and_names_say(results):
    batch = sampler(results).batch(0, 300)
    steps = {0: 100.0, 1: 10.0, 2: 1.0}
    seen = set()
    for image, pixel, plane, name in zip(
        batch.images[:, 0], batch.pixel_mm.tolist(), batch.planes.tolist(), batch.names, strict=True
    ):
        along_rows, along_columns = float(image[1, 0] - image[0, 0]), float(image[0, 1] - image[0, 0])
        axes = [axis for size in pixel for axis, mm in enumerate((1.0, 2.0, 3.0)) if mm == size]
        assert {plane, *axes} == {0, 1, 2}
        assert [abs(along_rows), abs(along_columns)] == [steps[axis] for axis in axes]
        # Only left and right may be exchanged.
        assert all(step > 0 or axis == 0 for step, axis in zip((along_rows, along_columns), axes, strict=True))
        seen.add((plane, *axes, along_rows > 0, along_columns > 0, name))
    kinds = {kind[:5] for kind in seen}
    # axial as it is, flipped, turned, both; coronal flipped or not; sagittal never flipped.
    assert len(kinds) == 7 and {kind[5] for kind in seen} == {"demo/sub-01_T1w", "demo/sub-02_T2w"}
    assert sorted(AXES.values()) == sorted({kind[0] for kind in kinds})


def test_splits_and_suffixes_choose_the_scans(results):
    assert set(sampler(results, suffixes=("T2w",)).batch(0, 20).names) == {"demo/sub-02_T2w"}
    validation = sampler(results, split="val")
    assert set(validation.batch(0, 20).names) == {"demo/sub-03_T1w"} and len(validation) == 18 + 30 + 24
    assert validation.source_keys == ["KEY-sub-03"]
    with pytest.raises(ValueError, match="no FLAIR scan of split 'train'"):
        sampler(results, suffixes=("FLAIR",))


def test_a_small_slice_is_mirrored_not_stretched(results):
    image = sampler(results, crop=40).batch(0, 1).images[0, 0].numpy()
    assert set(np.unique(np.abs(np.diff(image, axis=0)))) <= {0.0, 1.0, 10.0, 100.0}
