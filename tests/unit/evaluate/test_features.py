"""Sets of slices: of the same heads they are near, of blurred ones farther, the more the blur."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from headsr.evaluate.collect import collect_scores, read_scores
from headsr.evaluate.features import embedded, score_features
from headsr.evaluate.sets import score_set
from headsr.files import write_json
from headsr.networks.build import build_network
from headsr.recipes import ModelRecipe, build
from headsr.volumes import Grid, save_volume
from headsr.weights import load_model, load_tensors, save_model

SHAPE = (28, 30, 26)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
SCALE, OFFSET = 400.0, -20.0
BLURS = (0.0, 0.7, 1.4, 2.8)  # voxels
PLANES = ("axial", "coronal", "sagittal")
RECIPE = {
    "kind": "slice_encoder",
    "network": {"architecture": "slice_encoder", "channels": [8, 16], "blocks": 1, "unshuffle": 1},
    "data": {"kind": "marked_slices", "suffixes": ["T1w"], "crop": 16, "degradation": "thick"},
    "budget": {"steps": 1, "batch": 2},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"shape": "constant"},
    "seed": 1,
    "losses": {"plane": 1.0},
}


def head(seed):
    """A round head of smooth random tissue."""
    tissue = np.random.default_rng(seed).standard_normal(SHAPE)
    for axis in range(3):
        tissue = gaussian_filter1d(tissue, 1.0, axis)
    x, y, z = (np.indices(SHAPE) - np.array(SHAPE)[:, None, None, None] / 2) / 11
    inside = x**2 + y**2 + z**2 < 1
    return inside, (inside * (0.5 + 0.15 * tissue / tissue.std())).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A slice encoder with random weights: even that sees blur."""
    recipe = build(ModelRecipe, RECIPE, "encoder")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "encoder" / "weights.safetensors"
    save_model(path, build_network(recipe.network), recipe, record={"training_keys": "keys"})
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory, weights):
    """Files of features by the blur along z of the volumes in scan units, of three heads each."""
    root, found = tmp_path_factory.mktemp("features"), {}
    for number in range(3):
        inside, data = head(number)
        truth, mask = root / f"{number}.nii.gz", root / f"{number}_mask.nii.gz"
        save_volume(truth, data, GRID)
        save_volume(mask, inside.astype(np.uint8), GRID)
        record = {"scale": SCALE, "offset": OFFSET, "source_key": "KEY"}
        write_json(root / f"{number}.json", {"headsr": record})
        perfect = root / f"{number}_perfect.nii.gz"
        save_volume(perfect, (data * SCALE + OFFSET).astype(np.float32), GRID)
        for blur in BLURS:
            made = root / f"{number}_{blur}.nii.gz"
            blurred = gaussian_filter1d(data, blur, axis=2) if blur else data
            save_volume(made, (blurred * SCALE + OFFSET).astype(np.float32), GRID)
            output = root / f"{number}_{blur}.safetensors"
            score_features({"unprojected": made, "projected": perfect}, truth, mask, weights, output)
            found.setdefault(blur, []).append(output)
    return found


def scored(features, weights, path, metric):
    unit = {"dataset": "", "scan": "one_thick", "suffix": "", "method": "spline", "degradation": "axial_x4"}
    score_set(features, path, unit=unit, measures={metric: list(PLANES)}, weights=[weights])
    rows = json.loads(path.read_text())["rows"]
    return {(row["variant"], row["mask"]): row for row in rows}


@pytest.mark.parametrize("metric", ["kid", "slice_fid"])
def test_the_distance_grows_with_the_blur(features, weights, tmp_path, metric):
    found = {blur: scored(paths, weights, tmp_path / f"{blur}.json", metric) for blur, paths in features.items()}
    for plane in PLANES:
        values = [found[blur]["unprojected", plane]["value"] for blur in BLURS]
        assert values == sorted(values), plane
        assert values[-1] > 3 * abs(values[0]), plane
    same = [row["value"] for row in found[2.8].values() if row["variant"] == "projected"]
    assert np.abs(same).max() < 0.3 * min(found[2.8]["unprojected", plane]["value"] for plane in PLANES)


def test_kid_of_the_same_heads_is_nothing_and_says_how_sure_it_is(features, weights, tmp_path):
    found = scored(features[0.0], weights, tmp_path / "same.json", "kid")
    for row in found.values():
        assert abs(row["value"]) < 3 * row["error"] + 1e-3
        assert row["n"] > 50


def test_a_set_is_a_row_of_the_table_of_all_scores(features, weights, tmp_path):
    scored(features[1.4], weights, tmp_path / "kid.json", "kid")
    collect_scores([tmp_path / "kid.json"], tmp_path / "scores.tsv")
    rows = read_scores(tmp_path / "scores.tsv")
    assert {(row.name, row.variant, row.mask, row.metric) for row in rows} == {
        ("one_thick", variant, plane, "kid") for variant in ("unprojected", "projected") for plane in PLANES
    }
    assert all(row.n > 50 and math.isfinite(row.error) and row.trained_on == "encoder keys" for row in rows)


def test_features_are_of_all_slices_that_show_head(features):
    tensors, metadata = load_tensors(features[0.0][0])
    assert {name.partition(".")[0] for name in tensors} == {"unprojected", "projected", "truth"}
    assert metadata["source_key"] == "KEY"
    inside, _ = head(0)
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        shown = np.moveaxis(inside, axis, 0).mean(axis=(1, 2)) >= 0.05
        assert tensors[f"truth.{plane}"].shape == (shown.sum(), 16)
        assert torch.allclose(tensors[f"unprojected.{plane}"], tensors[f"truth.{plane}"], atol=1e-4)


def test_the_number_of_slices_at_once_changes_no_feature(weights):
    encoder = load_model(weights).module
    slices = np.random.default_rng(0).random((40, 20, 24), dtype=np.float32)
    alone = torch.cat([embedded(encoder, one[None], torch.device("cpu")) for one in slices])
    assert torch.allclose(embedded(encoder, slices, torch.device("cpu")), alone, atol=1e-6)


def test_a_volume_on_another_grid_is_refused(weights, tmp_path):
    inside, data = head(0)
    save_volume(tmp_path / "truth.nii.gz", data, GRID)
    write_json(tmp_path / "truth.json", {"headsr": {"scale": SCALE, "offset": OFFSET}})
    save_volume(tmp_path / "mask.nii.gz", inside.astype(np.uint8), GRID)
    save_volume(tmp_path / "other.nii.gz", data, Grid(SHAPE, np.diag([1.0, 2.0, 2.0, 1.0])))
    with pytest.raises(ValueError, match="lies on another grid"):
        score_features(
            {"projected": tmp_path / "other.nii.gz"},
            tmp_path / "truth.nii.gz",
            tmp_path / "mask.nii.gz",
            weights,
            tmp_path / "out.safetensors",
        )
