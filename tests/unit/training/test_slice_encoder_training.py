"""The slice encoder learns what it is asked, and its features tell slices apart by how good they are."""

import json

import numpy as np
import pytest
import torch

from headsr.files import write_json
from headsr.slices.extract import extract_slices
from headsr.slices.store import list_training_data
from headsr.training.chain import Sources, train_segment
from headsr.training.check import check_model
from headsr.volumes import Grid, save_volume
from headsr.weights import load_model

SHAPE = (24, 26, 22)


def head(number):
    """An ellipsoid with another grating along each axis, brighter towards the front and the vertex."""
    x, y, z = np.indices(SHAPE, dtype=np.float32) - np.array(SHAPE, np.float32)[:, None, None, None] / 2
    inside = (x / 10) ** 2 + (y / 11) ** 2 + (z / 10) ** 2 < 1
    gratings = np.sin(1.6 * x + number) + np.sin(y) + np.sin(0.5 * z)
    return inside, (inside * (0.5 + 0.02 * y + 0.02 * z + 0.15 * gratings)).astype(np.float32)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The index of three heads to train on and one to be asked about."""
    root, stores, grid = tmp_path_factory.mktemp("heads"), [], Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    for number, split in enumerate(("train", "train", "train", "val")):
        scan, mask = (root / f"sub-{number}_{name}.nii.gz" for name in ("T1w", "mask"))
        inside, data = head(number)
        save_volume(scan, data, grid)
        save_volume(mask, inside.astype(np.uint8), grid)
        write_json(root / f"sub-{number}_T1w.json", {"headsr": {"source_key": f"KEY-{number}"}})
        mark = root / f"sub-{number}_T1w.zarr" / "zarr.json"
        extract_slices(scan, mask, mark)
        stores.append((f"demo/sub-{number}_T1w", split, "T1w", str(mark)))
    list_training_data(stores, root / "training.json")
    return root / "training.json"


def test_the_recipe_can_be_trained(recipe_of, tmp_path):
    check_model("encoder", {"encoder": recipe_of("slice_encoder")}, tmp_path / "check.json", where="x")
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["losses"] == {"network": ["degradation", "plane", "position"]}


def test_segments_are_one_training(recipe_of, train, export):
    whole = train(recipe_of("slice_encoder", steps=4), "whole")
    parts = train(recipe_of("slice_encoder", steps=2, segments=2), "parts")
    assert parts.read_bytes() == whole.read_bytes()
    model = load_model(export(recipe_of("slice_encoder", steps=4), whole))
    assert model.kind == "slice_encoder"
    assert model.module.embedding(torch.rand(2, 1, 20, 18)).shape == (2, 16)


@pytest.mark.long
def test_it_learns_plane_position_and_degradation(recipe_of, heads, blind, tmp_path):
    """Of a head that it never saw. One thread: the crops are small, and two would wait for each other."""
    recipe = recipe_of(
        "slice_encoder",
        steps=600,
        network={"channels": [16, 32, 64]},
        data={"crop": 20},
        budget={"batch": 32},
        optimizer={"learning_rate": 3.0e-3},
        schedule={"shape": "cosine", "warm_up": 60},
        ema_decay=0.95,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_segment(
            recipe,
            Sources(heads, (), blind, {"train_segment": 1}),
            segment=0,
            course=recipe.course(0),
            previous=None,
            state=tmp_path / "segment-0.safetensors",
            history=tmp_path / "segment-0.jsonl",
            scratch=tmp_path / "scratch",
        )
    finally:
        torch.set_num_threads(threads)
    *_, last = map(json.loads, (tmp_path / "segment-0.jsonl").read_text().splitlines())
    assert last["val_plane_accuracy"] >= 0.95
    assert last["val_position_error"] <= 0.15, "a guess of the middle is off by 0.25"
    assert last["val_thickness_error"] <= 0.2, "half of them are thick, by a factor of 3 to 4: 1.5 to 2 in octaves"
