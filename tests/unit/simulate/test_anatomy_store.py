"""Label maps made ready for trainings."""

import subprocess
import sys

import numpy as np
import pytest

from headsr.files import sha256_of
from headsr.simulate.store import DEPTH_STEP_MM, StoreError, open_anatomy, prepare_anatomy, source_key
from headsr.volumes import axis_positions

ALL = (slice(None),) * 3


@pytest.fixture(scope="module")
def sources(ball_folder):
    return ball_folder / "sub-01_dseg.nii.gz", ball_folder / "labels.tsv"


@pytest.fixture(scope="module")
def path(sources, tmp_path_factory):
    output = tmp_path_factory.mktemp("anatomies") / "ball.safetensors"
    prepare_anatomy(*sources, output)
    return output


def test_structures_are_those_that_a_simulation_sees_at_half_the_voxel_size(path, ball):
    stored = open_anatomy(path)
    assert stored.structures == ball.structures and stored.cut == [[False, False]] * 3
    # The ball of 32 mm radius, without the voxels at that radius, and a voxel of air on every side.
    np.testing.assert_allclose(stored.size_mm, 65)
    np.testing.assert_allclose(stored.voxel_mm("winners"), 0.5)
    start = np.rint(-ball.grid.corners.min(axis=0) - 32.5).astype(int)
    box = ball.grid.block(tuple(start), (65, 65, 65))
    corners = np.stack(np.meshgrid(*[axis[[0, -1]] for axis in axes_mm(box)], indexing="ij"))
    fine, wanted = ball._around(corners.astype(np.float32), np.full(3, 0.5))
    at = tuple(np.rint(p).astype(int) for p in axis_positions(box.resized((130, 130, 130)), fine))
    np.testing.assert_array_equal(stored.read("winners", ALL).numpy(), wanted[np.ix_(*at)])


def axes_mm(grid):
    return [grid.affine[a, a] * np.arange(n) + grid.affine[a, 3] for a, n in enumerate(grid.shape)]


def test_a_window_is_a_part_of_the_whole(path):
    stored, window = open_anatomy(path), (slice(3, 40), slice(60, 61), slice(100, 130))
    assert (stored.read("winners", window) == stored.read("winners", ALL)[window]).all()


def test_depth_grows_from_the_scalp_to_the_middle(path):
    depth = open_anatomy(path).read("depth", ALL).numpy() * DEPTH_STEP_MM
    middle = tuple(n // 2 for n in depth.shape)
    assert depth[middle] == 25.5 and depth[0, 0, 0] == 0
    line = depth[: middle[0], middle[1], middle[2]]
    assert (np.diff(line) >= 0).all()
    assert np.interp(10, np.arange(len(line)) * 65 / depth.shape[0], line) == pytest.approx(10, abs=3)


def test_lesions_lie_in_white_matter_and_a_worse_degree_has_more(path):
    stored = open_anatomy(path)
    white = [s.tissue == "white" for s in stored.structures].index(True)
    winners, volumes = stored.read("winners", ALL).numpy(), []
    for degree in ("mild", "moderate", "severe"):
        part, start, size = stored.lesions(1, degree)
        first = np.rint(2 * start / size).astype(int)
        seen = winners[tuple(slice(a, a + 2 * n) for a, n in zip(first, part.shape, strict=True))]
        near = (seen == white).reshape(*np.ravel([(n, 2) for n in part.shape])).any(axis=(1, 3, 5))
        assert near[part.numpy() > 0].all()
        volumes.append(part.sum().item() / 255)
    assert 400 <= volumes[0] < volumes[1] < volumes[2]
    assert stored.lesions(0, "mild")[0].shape != stored.lesions(1, "mild")[0].shape


def test_the_shares_are_of_the_head_and_the_brain_is_where_it_is(path):
    stored = open_anatomy(path)
    shares = dict(zip([s.label for s in stored.structures], stored.shares, strict=True))
    assert shares[0] == 0 and sum(shares.values()) == pytest.approx(1)
    assert shares[4] == pytest.approx((6 / 32) ** 3, rel=0.1)
    np.testing.assert_allclose(stored.brain_mm, [[9, 56]] * 3)


def test_equal_sources_give_equal_bytes_and_their_key(path, sources, tmp_path):
    prepare_anatomy(*sources, tmp_path / "again.safetensors")
    assert sha256_of(path) == sha256_of(tmp_path / "again.safetensors")
    assert open_anatomy(path).metadata["key"] == source_key(*sources)


def test_what_is_no_anatomy_is_refused_with_its_name(path, tmp_path):
    with pytest.raises(StoreError, match=r"none\.safetensors: does not exist"):
        open_anatomy(tmp_path / "none.safetensors")
    flipped, whole = tmp_path / "flipped.safetensors", bytearray(path.read_bytes())
    whole[-len(whole) // 3] ^= 1
    flipped.write_bytes(whole)
    with pytest.raises(StoreError, match=r"flipped\.safetensors: is damaged or no anatomy"):
        open_anatomy(flipped)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"broken\.safetensors: is damaged or no anatomy"):
        open_anatomy(broken)


def test_opening_needs_no_scipy():
    code = (
        "import sys, headsr.training.data.anatomies as _; assert not {'scipy', 'nibabel', 'zarr'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
