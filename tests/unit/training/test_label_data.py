"""Label maps shown in random contrasts, and the studies that are simulated from them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headsr.files import read_json
from headsr.recipes import build
from headsr.recipes.models import DataRecipe
from headsr.slices.extract import extract_labels
from headsr.slices.store import list_training_data
from headsr.training.data.labels import draw_bias, draw_contrast, draw_texture, paint
from headsr.training.data.studies import StudySampler
from headsr.volumes import load_volume, save_volume

CPU = torch.device("cpu")
STUDIES = {"kind": "studies", "source": "labels", "suffixes": ["T1w"], "block": [8, 10, 6], "margin": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def labelled(index, tmp_path_factory):
    """The index of the same heads with labels: three slabs of each head, 0 around it."""
    root, folder, stores = index.parents[2], tmp_path_factory.mktemp("labelled"), []
    mask = load_volume(root / "mask.nii.gz")
    slabs = mask.data * (1 + np.indices(mask.grid.shape)[1] // 7)
    save_volume(folder / "labels.nii.gz", slabs.astype(np.uint16), mask.grid)
    for entry in read_json(index)["stores"]:
        mark = folder / f"{entry['name'].rpartition('/')[2]}_labels.zarr" / "zarr.json"
        extract_labels(folder / "labels.nii.gz", root / "mask.nii.gz", mark)
        heads = str(index.parent / entry["store"] / "zarr.json")
        stores.append((entry["name"], entry["split"], entry["suffix"], heads, str(mark)))
    list_training_data(stores, folder / "training.json")
    return folder / "training.json"


def sampler(index, **change):
    data = build(DataRecipe, STUDIES | change, "data")
    recipe = SimpleNamespace(data=data, seed=5, kind="any", budget=SimpleNamespace(batch=3))
    return StudySampler(recipe, index, split="train", blind=None, device=CPU)


def test_a_contrast_is_a_mean_and_a_deviation_of_every_label_and_dark_around_the_head():
    contrasts = torch.stack([draw_contrast(generator(seed)) for seed in range(20)])
    means, deviations = contrasts[:, 0], contrasts[:, 1]
    assert means[:, 1:].min() >= 0 and 0.99 < means[:, 1:].max() <= 1 and 0.099 < deviations[:, 1:].max() <= 0.1
    assert means[:, 0].max() <= 0.1 and deviations[:, 0].max() <= 0.01
    assert len(means[0, :100].unique()) == 100


@pytest.mark.parametrize("seed", range(4))
def test_texture_has_deviation_one_everywhere_however_smooth(seed):
    texture = draw_texture((64, 48, 40), generator(seed), CPU)
    assert texture.mean().abs() < 0.05 and texture.std().item() == pytest.approx(1, rel=0.05)
    assert texture[0].std().item() == pytest.approx(1, rel=0.15)


def test_a_bias_field_is_smooth_and_within_its_bounds():
    bias = draw_bias((40, 30, 20), generator(), CPU)
    assert 0.7 <= bias.min() < 0.95 and 1.05 < bias.max() <= 1.3
    assert bias.diff(dim=0).abs().max() <= 0.6 / (40 / 4) + 1e-5


def test_every_label_is_told_from_the_others_by_its_mean():
    labels = torch.arange(4).repeat_interleave(12).expand(1, 1, 32, 32, 48)
    for seed in range(4):
        (image,) = paint(labels, [seed])[:, 0]
        assert image.shape == (32, 32, 48) and image.dtype == torch.float32 and image.min() >= 0
        inner = [image[..., 12 * label + 3 : 12 * label + 9] for label in range(4)]
        means = torch.stack([part.mean() for part in inner])
        assert len(means.unique()) == 4 and means[0] <= 0.13 and all(part.std() < 0.35 for part in inner)
    assert not torch.equal(*(paint(labels, [seed]) for seed in (1, 2)))


def test_a_batch_is_its_examples():
    labels = torch.randint(0, 2036, (3, 1, 9, 8, 7), generator=generator())
    together = paint(labels, [4, 5, 6])
    for number, seed in enumerate((4, 5, 6)):
        assert torch.equal(together[number : number + 1], paint(labels[number : number + 1], [seed]))


def test_a_study_of_labels_is_a_function_of_its_step(labelled):
    study, again, other = (sampler(labelled).batch(step) for step in (7, 7, 8))
    assert study.blocks.shape == (3, 1, 12, 14, 10)
    assert torch.equal(study.blocks, again.blocks) and all(map(torch.equal, study.scans, again.scans))
    assert not torch.equal(study.blocks, other.blocks)
    assert torch.equal(study.blocks[:2], sampler(labelled).batch(7, 2).blocks)


def test_heads_and_labels_are_measured_by_the_same_operators(index, labelled):
    heads, labels = sampler(index, source="heads").batch(7), sampler(labelled).batch(7)
    assert [scan.shape for scan in heads.scans] == [scan.shape for scan in labels.scans]
    assert heads.noise == labels.noise and not torch.equal(heads.blocks, labels.blocks)


def test_studies_are_exact_in_a_training_of_low_precision(labelled):
    study = sampler(labelled).batch(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = sampler(labelled).batch(7)
    assert all(map(torch.equal, [study.blocks, *study.scans], [within.blocks, *within.scans]))


def test_blank_batches_have_the_shapes_of_batches(labelled):
    real = sampler(labelled, scans=[1, 1])
    recipe = SimpleNamespace(data=real.data)
    blank = StudySampler.blank(recipe, 3)
    assert blank.blocks.is_meta and blank.blocks.shape == real.batch(1).blocks.shape


def test_heads_without_labels_are_refused(index):
    with pytest.raises(ValueError, match="lists no labels of demo/sub-0_T1w; see the companions in the scan table"):
        sampler(index)
