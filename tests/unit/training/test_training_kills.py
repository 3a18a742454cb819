"""Trainings against a discriminator, killed by SIGKILL wherever it hurts."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from headsr.recipes import ModelRecipe, build, plain
from headsr.recipes.models import LossTerm
from headsr.weights import load_tensors

PROGRAM = Path(__file__).with_name("killed_trainings.py")
# Each step calls the first four twice, in the generator's turn and the discriminator's; the last is called by every
# state that is written, before it is in its place.
POINTS = [
    ("headsr.training.loop._give_turn", 1),  # before anything
    ("headsr.training.loop._accumulate", 4),  # with the discriminator's losses of step 2
    ("headsr.training.loop.update_average", 3),  # after the generator's turn of step 3
    ("headsr.training.loop.iterate_spectral_norms", 4),  # after the discriminator's turn of step 4
    ("headsr.weights.seal", 1),  # when the state after step 4 is half written
    ("headsr.weights.seal", 3),  # and when that at the end is
]
GOES_ON_FROM = [1, 2, 3, 3]  # the steps after which the third point and all after it find a state
NETWORKS = {
    "slice_unet": {"architecture": "slice_unet", "channels": [4, 6]},
    "rrdb": {"architecture": "rrdb", "channels": 4, "blocks": 1, "growth": 2},
}


@pytest.mark.parametrize(("network", "loss"), [("slice_unet", "vanilla"), ("rrdb", "relativistic")])
def test_a_training_against_a_discriminator_ends_in_the_same_bytes(
    recipe_of, train, index, blind, tmp_path, network, loss
):
    recipe = replace(
        recipe_of("adversarial", steps=5),
        network=NETWORKS[network],
        discriminator={"architecture": "unet_discriminator", "channels": 4},
        losses={"l1": LossTerm(1.0), "wavelet": LossTerm(0.1), loss: LossTerm(0.1)},
        checkpointing=loss == "vanilla",
    )
    recipe = build(ModelRecipe, plain(recipe), "whole")  # losses are summed in the order of their names
    whole = train(recipe, "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    what = {"recipe": plain(recipe), "index": str(index), "blind": plain(blind), "points": POINTS}
    (folder / "what.json").write_text(json.dumps(what))
    done = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(POINTS), done.stderr
    assert [int(step) for step in re.findall(r"goes on from step (\d+)", done.stdout)] == GOES_ON_FROM
    assert not (folder / "segment-0.safetensors").exists()
    killed = train(recipe, "killed")
    assert killed.read_bytes() == whole.read_bytes()
    assert killed.with_suffix(".jsonl").read_bytes() == whole.with_suffix(".jsonl").read_bytes()
    tensors, _ = load_tensors(killed)
    assert any(name.startswith("discriminator.module.") and name.endswith(".left") for name in tensors)
