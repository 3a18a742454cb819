"""What 2 cores train in minutes is what the papers' recipes say, smaller."""

from dataclasses import replace

import pytest

from headsr.recipes import load_config, load_recipes, plain

# A rate and a moving average go with the length of a training, visits of a painted slice with how long a step takes.
_LENGTHS = {"budget", "ema_decay"}
_SIZES = {"channels", "blocks", "growth", "depths", "enlarging"}
_PAIRS = {
    "unet_small": "unet",
    "unet_in_plane_small": "unet_in_plane",
    "rrdb_small": "rrdb",
    "rrdb_x4_small": "rrdb_x4",
    "swinir_light": "swinir",
    "swinir_x4_light": "swinir_x4",
    "rrdb_gan_small": "rrdb_gan",
    "rrdb_x4_gan_small": "rrdb_x4_gan",
}


@pytest.fixture(scope="module")
def recipes():
    return load_recipes(load_config([]))


def without_sizes(recipe):
    said = plain(recipe)
    for network in ("network", "discriminator"):
        said[network] = {key: value for key, value in said.get(network, {}).items() if key not in _SIZES}
    for key in ("crop", "visits"):
        said["data"].pop(key)
    said["optimizer"].pop("learning_rate")
    said["schedule"].pop("warm_up")
    return {key: value for key, value in said.items() if key not in _LENGTHS}


@pytest.mark.parametrize(("small", "large"), _PAIRS.items())
def test_recipes_differ_from_the_papers_in_sizes_only(recipes, small, large):
    one, other = recipes.models[small], recipes.models[large]
    if other.kind == "adversarial":
        assert _PAIRS[one.generator] == other.generator
        one = replace(one, generator=other.generator)
    assert without_sizes(one) == without_sizes(other)
    assert one.budget.steps * one.budget.segments < other.budget.steps * other.budget.segments
