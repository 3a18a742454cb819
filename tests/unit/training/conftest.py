"""Slices of three small heads and a recipe per kind of model that trains in a second."""

import numpy as np
import pytest

from headsr.files import write_json
from headsr.recipes import Blind, ModelRecipe, build, merged
from headsr.slices.extract import extract_slices
from headsr.slices.store import list_training_data
from headsr.training.chain import Sources, export_model, train_segment
from headsr.volumes import Grid, save_volume

SHAPE = (18, 20, 17)
NEVER = {
    "blur_probability": 0.0,
    "blur_sigma_mm": [0.5, 1.0],
    "thick_factor": [3, 4],
    "thick_probability": 1.0,
    "noise_probability": 0.5,
    "noise_sigma": [0.01, 0.02],
    "correlated_noise_probability": 0.0,
    "ringing_probability": 0.0,
    "ringing_cutoff": [0.7, 0.9],
    "compression_probability": 0.0,
    "compression_quality": [80, 95],
}
BLIND = {"first": NEVER, "second": {**NEVER, "thick_probability": 0.0}, "second_probability": 0.0}
ORIGINS = {"demo": {"version": "v1", "license": "CC0", "citation": "Nobody (2025)"}}
SLICES = {"kind": "slices", "suffixes": ["T1w"], "crop": 16, "degradation": "thick"}
STUDY_SLICES = {"kind": "study_slices", "suffixes": ["T1w"], "crop": 16, "per_block": 4, "factor": [2, 4], "short": 0.3}
LDM = {
    "network": {
        "architecture": "unet2d",
        "channels": [4, 8],
        "blocks": 1,
        "attention": [False, True],
        "head_width": 4,
    },
    "losses": {"denoising": 1.0, "wavelet": 0.1},
    "autoencoder": "kl",
}
KINDS = {
    "baseline": {
        "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
        "losses": {"l1": 1.0, "gradient": 0.1, "wavelet": 0.1},
    },
    "adversarial": {
        "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
        "discriminator": {"architecture": "patch_discriminator", "channels": 4, "layers": 1},
        "losses": {"l1": 1.0, "relativistic": 0.01},
    },
    "autoencoder": {
        "network": {"architecture": "kl", "channels": [4, 4, 8], "blocks": 1},
        "losses": {"l1": 1.0, "kl": 1e-6},
    },
    "ldm": LDM,
    "ldm_studies": {**LDM, "kind": "ldm", "data": STUDY_SLICES},
    "slice_encoder": {
        "network": {"architecture": "slice_encoder", "channels": [8, 16], "blocks": 1, "unshuffle": 1},
        "data": {**SLICES, "kind": "marked_slices"},
        "losses": {"plane": 1.0, "position": 1.0, "degradation": 1.0},
    },
    "unrolled": {
        "network": {
            "architecture": "unrolled",
            "stages": 2,
            "widths": [8, 8],
            "blocks": [1, 1, 1],
            "solves": 2,
        },
        "data": {"kind": "studies", "suffixes": ["T1w"], "block": [16, 16, 12], "factor": [2, 3], "tilt_degrees": 5},
        "losses": {"l1": 1.0, "laplace": 0.1},
    },
}


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The index of training slices of two training heads and one for validation: ellipsoids with a grating."""
    root = tmp_path_factory.mktemp("results")
    stores, (x, y, z) = [], np.indices(SHAPE, dtype=np.float32) - np.array(SHAPE)[:, None, None, None] / 2
    head = (x / 8) ** 2 + (y / 9) ** 2 + (z / 8) ** 2 < 1
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    save_volume(root / "mask.nii.gz", head.astype(np.uint8), grid)
    for number, split in enumerate(("train", "train", "val")):
        data = head * (0.5 + 0.3 * np.sin(x + number) * np.sin(1.3 * y) * np.sin(0.9 * z))
        scan = root / f"sub-{number}_T1w.nii.gz"
        save_volume(scan, data.astype(np.float32), grid)
        write_json(root / f"sub-{number}_T1w.json", {"headsr": {"source_key": f"KEY-{number}"}})
        mark = root / "slices" / f"sub-{number}_T1w.zarr" / "zarr.json"
        extract_slices(scan, root / "mask.nii.gz", mark)
        stores.append((f"demo/sub-{number}_T1w", split, "T1w", str(mark)))
    list_training_data(stores, root / "models" / "any" / "training.json")
    return root / "models" / "any" / "training.json"


@pytest.fixture(scope="session")
def blind():
    """Slices three to four pixels thick, half of them noisy."""
    return build(Blind, BLIND, "blind")


@pytest.fixture(scope="session")
def recipe_of():
    """Make the recipe of a kind of model, or of one with other data, with changes to its blocks."""

    def make(kind, *, steps=4, segments=1, **changes):
        block = {
            "kind": kind,
            "data": SLICES,
            "budget": {"steps": steps, "batch": 2, "segments": segments},
            "optimizer": {"learning_rate": 0.01},
            "schedule": {"shape": "constant", "warm_up": 5},
            "seed": 5,
        }
        return build(ModelRecipe, merged({**block, **KINDS[kind]}, changes), kind)

    return make


@pytest.fixture
def train(tmp_path, index, blind):
    """Train the segments of a recipe from ``first`` on, in a folder; returns the last state."""

    def run(recipe, name="a", *, companions=(), first=0, stage=1, blind=blind, processes=1):
        folder, state = tmp_path / name, None
        sources = Sources(index, companions, blind, {"train_segment": stage})
        for segment in range(recipe.budget.segments):
            previous, state = state, folder / f"segment-{segment}.safetensors"
            if segment >= first:
                train_segment(
                    recipe,
                    sources,
                    segment=segment,
                    course=recipe.course(segment),
                    previous=previous,
                    state=state,
                    history=folder / f"segment-{segment}.jsonl",
                    scratch=folder / "scratch",
                    processes=processes,
                )
        return state

    return run


@pytest.fixture
def export():
    """Export the last state of a recipe into the folder of the state; returns the weights."""

    def run(recipe, state, companions=()):
        out = {"weights": "weights.safetensors", "history": "history.jsonl", "recipe_copy": "recipe.yaml"}
        files = {key: state.with_name(name) for key, name in out.items()}
        histories = [state.with_name(f"segment-{segment}.jsonl") for segment in range(recipe.budget.segments)]
        facts = {"datasets": ORIGINS, "citation": "Somebody (2026)"}
        export_model(recipe, state, companions=companions, histories=histories, **files, **facts)
        return files["weights"]

    return run


@pytest.fixture
def model(train, export):
    """Train and export a recipe; returns its weights, which lie in a folder of the model's name."""

    def run(recipe, name, *, companions=()):
        return export(recipe, train(recipe, name, companions=companions), companions)

    return run
