"""Blocks painted from stored anatomies on the device of a training."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from headsr.devices import generator_of
from headsr.simulate import store
from headsr.simulate.labelmap import load_label_map
from headsr.simulate.look import draw_look
from headsr.simulate.realism import decibels, histogram, wasserstein
from headsr.simulate.store import open_anatomy, prepare_anatomy
from headsr.training.data import anatomies
from headsr.training.data.anatomies import AnatomySampler, paint
from headsr.volumes import cell_average

CPU = torch.device("cpu")
SHAPE = (20, 18, 16)


@pytest.fixture(scope="module")
def head(index):
    return open_anatomy(index.parent / "a.safetensors")


def sampler(index, split="train", seed=5):
    return AnatomySampler(index, split=split, shape=SHAPE, seed=seed, device=CPU)


@pytest.fixture
def straight(monkeypatch):
    """Heads in their own size and form, with sharp borders and no grain, the block's middle in theirs."""
    monkeypatch.setattr(anatomies, "_SOFT", (0.0, 0.0))
    monkeypatch.setattr(anatomies, "_GRAINY", 0.0)
    monkeypatch.setattr(anatomies, "_SIZE", 0.0)
    monkeypatch.setattr(anatomies, "_BEND_MM", (0.0, 0.0))
    monkeypatch.setattr(anatomies, "_middle", lambda head, *_: torch.from_numpy(head.size_mm / 2).float())


def test_a_batch_is_a_function_of_seed_split_and_step(index):
    batch, again = (sampler(index).batch(7, 4) for _ in range(2))
    assert batch.blocks.shape == batch.lesions.shape == (4, 1, *SHAPE) and batch.blocks.dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(batch[:3], again[:3], strict=True))
    assert batch.names == again.names
    few = sampler(index).batch(7, 2)
    assert torch.equal(few.blocks, batch.blocks[:2]) and torch.equal(few.voxel_mm, batch.voxel_mm[:2])
    for other in (sampler(index).batch(8, 4), sampler(index, seed=6).batch(7, 4), sampler(index, "val").batch(7, 4)):
        assert not torch.equal(other.blocks, batch.blocks)


def test_a_split_draws_its_own_anatomies_and_all_of_them(index):
    assert set(sampler(index).batch(0, 12).names) == {"a", "c"}
    assert set(sampler(index, "val").batch(0, 12).names) == {"b"}
    with pytest.raises(ValueError, match="lists no anatomy of split 'test'"):
        sampler(index, "test")


def test_the_number_of_threads_changes_nothing(index):
    threads, batches = torch.get_num_threads(), []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            batches.append(AnatomySampler(index, split="train", shape=(64, 48, 40), seed=1, device=CPU).batch(3, 3))
    finally:
        torch.set_num_threads(threads)
    for one, other in pairwise(batches):
        assert torch.equal(one.blocks, other.blocks) and torch.equal(one.lesions, other.lesions)


def test_blocks_are_finite_bright_as_a_normalised_scan_and_of_usual_voxels(index):
    batch = sampler(index).batch(1, 30)
    assert torch.isfinite(batch.blocks).all() and batch.blocks.min() >= 0
    assert 0.3 < batch.blocks.amax(dim=(1, 2, 3, 4)).median() < 1.6
    assert batch.voxel_mm.min() >= 0.5 and batch.voxel_mm.max() <= 2
    assert ((batch.voxel_mm > 0.8) & (batch.voxel_mm < 1.2)).float().mean() > 0.4


@pytest.mark.parametrize("suffix", ["T1w", "random"])
def test_air_is_black_and_lesions_are_in_white_matter_alone(head, straight, suffix):
    block, lesions = paint(head, (48, 48, 48), 2.0, seed=2, device=CPU, suffix=suffix, lesions="severe")
    radius = np.sqrt(sum(axis**2 for axis in np.ix_(*[2 * (np.arange(48) - 23.5)] * 3)))
    assert block[radius > 38].max() == 0 and block[radius < 30].min() > 0
    inside = (radius > 4) & (radius < 22)
    assert lesions[~inside].max() == 0 and 0.5 < lesions[inside].max() <= 1
    clean, none = paint(head, (48, 48, 48), 2.0, seed=2, device=CPU, suffix=suffix, lesions="none")
    assert none.max() == 0
    assert torch.equal(clean[lesions == 0], block[lesions == 0]) and not torch.equal(clean, block)


@pytest.mark.parametrize(("voxel_mm", "n"), [(0.5, 96), (0.9, 56), (1.0, 50), (1.6, 30), (2.0, 24)])
def test_voxels_have_their_size(head, straight, voxel_mm, n):
    grid = anatomies._Block((n, n, n), voxel_mm, CPU)
    nodes = anatomies._placed(head, grid, generator_of(1))
    look = draw_look(head.structures, "T1w", np.random.default_rng(1))
    white = anatomies._parts(head, look, nodes, grid, anatomies._Tissue(soft=0.6, soft_mm=1.0)).white
    assert white.sum().item() * voxel_mm**3 == pytest.approx(4 / 3 * math.pi * (20**3 - 6**3), rel=0.02)
    assert white.max() <= 1 + 1e-5


def test_random_fields_have_their_deviation_and_voxels_average_them():
    def deviation(voxel_mm, **how):
        grid = anatomies._Block((48, 40, 44), voxel_mm, CPU)
        return anatomies._noise(grid, (1.0, 1.0, 1.0), generator_of(1), channels=16, **how).std().item()

    assert deviation(0.3) == pytest.approx((1 / (1 + 0.3**2 / 12)) ** 0.75, rel=0.05)
    assert deviation(2.0) == pytest.approx((1 / (1 + 2.0**2 / 12)) ** 0.75, rel=0.05)
    assert deviation(2.0, of_points=True) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("variance", [0.3, 0.5, 1.7])
def test_diffusion_keeps_the_sum_and_adds_its_variance(variance):
    field = torch.zeros(1, 17, 17, 17)
    field[0, 8, 8, 8] = 1
    blurred = anatomies._diffused(field, variance)[0]
    assert blurred.sum().item() == pytest.approx(1) and blurred.min() >= 0
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        assert (blurred.sum(dim=others) * (torch.arange(17) - 8) ** 2).sum().item() == pytest.approx(variance, rel=1e-5)


def test_tissues_differ_in_their_borders_and_texture_from_head_to_head():
    drawn = [anatomies._draw_tissue(generator_of(seed)) for seed in range(50)]
    soft, soft_mm, texture, slow, grain = (np.array(values) for values in zip(*drawn, strict=True))
    assert 0 <= soft.min() < 0.1 and 0.6 < soft.max() <= 0.7 and 0.5 <= soft_mm.min() < soft_mm.max() <= 1.5
    assert 0.7 <= texture.min() < 0.9 and 2.0 < texture.max() <= 2.5 and 0 <= slow.min() < slow.max() <= 0.6
    assert 15 < (grain == 0).sum() < 35 and 0.003 <= grain[grain > 0].min() < 0.006 and 0.015 < grain.max() <= 0.03


def test_grain_is_white_noise_of_a_magnitude(head, straight, monkeypatch):
    plain, _ = paint(head, (40, 40, 40), 2.0, seed=2, device=CPU, suffix="T1w", lesions="none")
    monkeypatch.setattr(anatomies, "_GRAINY", 1.0)
    monkeypatch.setattr(anatomies, "_GRAIN", (0.02, 0.02))
    grainy, _ = paint(head, (40, 40, 40), 2.0, seed=2, device=CPU, suffix="T1w", lesions="none")
    grain = (grainy - plain)[plain > 0.1]
    assert grain.std().item() == pytest.approx(0.02, rel=0.03) and abs(grain.mean().item()) < 0.001
    assert grainy.min() >= 0


@pytest.mark.parametrize("suffix", ["T1w", "T2w"])
def test_soft_borders_keep_the_means_and_lower_the_slopes(head, straight, suffix):
    grid = anatomies._Block((48, 48, 48), 1.5, CPU)
    nodes = anatomies._placed(head, grid, generator_of(1))
    look = draw_look(head.structures, suffix, np.random.default_rng(1))
    sharp, soft = (anatomies._parts(head, look, nodes, grid, anatomies._Tissue(share, 1.2)).mean for share in (0, 0.7))
    assert soft.mean().item() == pytest.approx(sharp.mean().item(), rel=1e-3)
    slopes = [torch.diff(one, dim=0).square().mean().item() for one in (sharp, soft)]
    assert slopes[1] < 0.8 * slopes[0]


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """A map of the test data, and what is stored of it."""
    sources = shared / "labelmaps/sub-01_dseg.nii.gz", shared / "labelmaps/labels.tsv"
    path = tmp_path_factory.mktemp("real") / "sub-01.safetensors"
    prepare_anatomy(*sources, path)
    return load_label_map(*sources), open_anatomy(path)


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.parametrize("suffix", ["T1w", "T2w", "FLAIR"])
def test_blocks_are_what_the_simulation_makes_of_the_same_place_and_look(real, suffix):
    labelmap, stored = real
    pairs = [both_ways(labelmap, stored, suffix, seed) for seed in (0, 1, 3)]
    painted, simulated = (np.stack(images) for images in zip(*pairs, strict=True))
    shown = simulated > 0.02
    assert wasserstein(histogram(painted[shown]), histogram(simulated[shown])) < 0.02
    assert np.corrcoef(painted.ravel(), simulated.ravel())[0, 1] > 0.9
    spectra = [decibels(sum(spectrum(image) for image in images)) for images in (painted, simulated)]
    assert np.abs(spectra[0] - spectra[1]).max() < 1.5


def both_ways(labelmap, stored, suffix, seed):
    """A block without lesions as it is painted and as it is simulated, but for the random numbers of texture."""
    grid = anatomies._Block((64, 64, 64), 1.0, CPU)
    nodes = anatomies._placed(stored, grid, generator_of(seed, "place"))
    look = draw_look(stored.structures, suffix, np.random.default_rng(seed))
    mixture = anatomies._mixture(stored, nodes, grid, generator_of(seed, "mixture"))
    parts = anatomies._parts(stored, look, nodes, grid, anatomies._Tissue())
    painted = anatomies._signal(look, parts, torch.zeros(grid.shape), mixture, grid, anatomies._Tissue(), seed).numpy()
    splines = anatomies._splines(grid.edges_mm, grid.axes(2), anatomies._NODE_MM, CPU)
    positions = anatomies._along(splines, nodes).numpy() + corner_of(labelmap, stored)
    half = np.full(3, 0.5)
    rng = np.random.default_rng(seed)
    imaged = labelmap.imaged(suffix, seed=seed, lesions="none", rng=rng, spacing_mm=half)
    brightest = anatomies._brightest(look, stored.shares)
    return painted / brightest, cell_average(imaged(positions), grid.shape) / brightest


def corner_of(labelmap, stored):
    box, _ = store._box_of(labelmap)
    start = labelmap.grid.corners.min(axis=0) + [s.start for s in box] * labelmap.grid.voxel_size
    return start[:, None, None, None].astype(np.float32)


def spectrum(image):
    """Mean power over rings of 0.02 to 0.45 cycles/mm, under Hann's window."""
    windows = [np.hanning(n + 2)[1:-1] for n in image.shape]
    window = np.einsum("i,j,k->ijk", *windows)
    power = np.abs(np.fft.fftn((image - np.average(image, weights=window)) * window)) ** 2
    frequency = np.sqrt(sum(axis**2 for axis in np.ix_(*[np.fft.fftfreq(n) for n in image.shape])))
    ring = np.digitize(frequency, np.linspace(0.02, 0.45, 12))
    return np.array([power[ring == number].mean() for number in range(1, 12)])
