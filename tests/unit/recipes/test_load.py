"""What a name means: every shipped file builds, and every slip is named with the way out."""

import copy

import pytest

from headsr.acquisition import profile as profiles
from headsr.recipes import (
    PROFILES,
    RecipeError,
    load_config,
    load_recipes,
    plain,
)


@pytest.mark.parametrize("deltas", [[], ["config/demo.yaml"], ["tests/config/smoke/config.yaml"]])
def test_every_shipped_configuration_builds(deltas):
    recipes = load_recipes(load_config(deltas))
    assert recipes.tables and recipes.methods


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("methods", "inr_prior", "prior"), "ldn", "unknown model 'ldn'; did you mean 'ldm'"),
        (("methods", "spline", "kind"), "splin", "unknown kind 'splin'; did you mean 'spline'"),
        (("tables", "one_thick", "methods"), ["splne"], "unknown method 'splne'; did you mean 'spline'"),
        (("tables", "one_thick", "degradations"), ["axial_x5"], "unknown degradation 'axial_x5'"),
        (("tables", "one_thick", "datasets"), ["ds00113"], "unknown dataset 'ds00113'; did you mean 'ds000113'"),
    ],
)
def test_a_name_that_nothing_defines_is_refused(path, value, message):
    config = copy.deepcopy(load_config([]))
    config["overrides"] = {path[0]: {path[1]: {path[2]: value}}}
    with pytest.raises(RecipeError, match=message):
        load_recipes(config)


def test_a_denoiser_goes_on_in_the_latents_that_it_learned_in():
    config = copy.deepcopy(load_config([]))
    assert load_recipes(config).models["ldm_wavelet"].denoiser == "ldm"
    other = load_recipes(config).models["kl_f4"]
    config["overrides"] = {"models": {"other": plain(other), "ldm_wavelet": {"autoencoder": "other"}}}
    with pytest.raises(
        RecipeError, match=r"ldm_wavelet\.denoiser: 'ldm' lives in the latents of 'kl_f4', not in those of"
    ):
        load_recipes(config)


OWN = "mine: {url: mine, version: v1, license: none, citation: none}"
TABLE = {"title": "Mine", "methods": ["spline"], "degradations": ["axial_x4"], "suffixes": ["T1w"]}


def with_own_datasets(tmp_path, **table):
    (tmp_path / "own.yaml").write_text(OWN)
    config = copy.deepcopy(load_config([]))
    config["recipes"]["datasets"] = str(tmp_path / "own.yaml")
    return config | {"tables": ["mine"], "overrides": {"tables": {"mine": TABLE | table}}}


def test_shipped_recipes_that_are_not_asked_for_refuse_nobody_s_own_datasets(tmp_path):
    recipes = load_recipes(with_own_datasets(tmp_path))
    assert list(recipes.datasets) == ["mine"]
    assert list(recipes.tables) == ["mine"]  # all others are about scans that are not there
    assert {"spline", "slice_network"} <= recipes.methods.keys() and "edsr" in recipes.models
    assert "slice_network_labels" not in recipes.methods and "edsr_labels" not in recipes.models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": ["one_thick"]}, "one_thick.datasets.*: unknown dataset 'ds000113'; known: mine"),
        ({"tables": ["mine", "one_thik"]}, "tables: unknown table 'one_thik'"),
    ],
)
def test_what_is_asked_for_and_cannot_be_used_is_refused(tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipes(with_own_datasets(tmp_path) | change)


def test_what_a_table_asks_for_by_way_of_a_method_is_refused_by_the_name_that_is_missing(tmp_path):
    with pytest.raises(RecipeError, match=r"edsr_labels\.data\.datasets.*: unknown dataset 'synthseg'; known: mine"):
        load_recipes(with_own_datasets(tmp_path, methods=["slice_network_labels"]))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"kind": "simulate"}, r"axial_x4\.kind: unknown kind 'simulate'; did you mean 'simulated'"),
        ({"stacks": []}, r"axial_x4: stacks: a simulated degradation needs one or more"),
        ({"stacks": [{"view": "axail", "factor": 4}]}, "unknown view 'axail'; did you mean 'axial'"),
        ({"stacks": [{"view": "axial", "factor": 4, "profile": "bok"}]}, "unknown profile 'bok'; did you mean 'box'"),
        ({"stacks": [{"view": "axial", "factor": 0.5}]}, r"factor: 0.5 is out of range; it must be at least 1"),
        (
            {"stacks": [{"view": "axial", "factor": 4, "thickness": 0}]},
            r"thickness: 0 is out of range; it must be above 0",
        ),
        ({"stacks": [{"view": "axial", "factor": 4}, {"view": "axial", "factor": 2}]}, "one stack a view"),
        (
            {"stacks": [{"view": "isotropic", "factor": 4}]},
            r"'slice_network' has the model 'edsr', trained on thick slices seen from the side; .* have no slices",
        ),
        (
            {"stacks": [{"view": "axial", "factors": [4, 4, 1]}]},
            r"'edsr', trained on thick slices .*; .* have slices whose rows and columns are coarse",
        ),
        ({"stacks": [{"view": "axial", "factors": [4, 4, 1], "factor": 4}]}, "'factor' is missing, or 'factors'"),
        ({"stacks": [{"view": "axial", "factors": [4, 4]}]}, r"factors: needs 3 values, not 2"),
        ({"stacks": [{"view": "isotropic", "factors": [4, 4, 1]}]}, "name the plane of the slices as the view"),
        ({"kind": "acquired", "stacks": [{"view": "axial", "factors": [1, 1, 4]}]}, "give a factor"),
        ({"kind": "acquired", "stacks": [{"view": "isotropic", "factor": 4}]}, "is refined along one view"),
        ({"together": True}, r"axial_x4: together: stacks simulated from one head lie together already"),
    ],
)
def test_stacks_that_cannot_be_are_refused_before_anything_runs(block, message):
    config = copy.deepcopy(load_config([]))
    config["overrides"] = {"degradations": {"axial_x4": block}}
    with pytest.raises(RecipeError, match=message):
        load_recipes(config)


def test_a_network_that_makes_slices_larger_serves_scans_that_are_coarse_by_its_scale():
    config = copy.deepcopy(load_config([])) | {"tables": ["slice_networks_in_plane"]}
    load_recipes(config)
    stacks = [{"view": "axial", "factors": [2, 4, 1]}]
    config["overrides"] = {"degradations": {"inplane_x4": {"stacks": stacks}}}
    message = (
        "'rrdb_x4' has the model 'rrdb_x4', which makes rows and columns 4 times .* 'inplane_x4' are 2 and 4 times"
    )
    with pytest.raises(RecipeError, match=message):
        load_recipes(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"view": "edge_on"}}, "network.scale: 4 makes rows and columns finer alike, .* edge_on"),
        ({"data": {"crop": 98}}, "data.crop: 98 must be a multiple of network.scale, 4, and at least 32"),
        ({"data": {"crop": 28}}, "data.crop: 28 must be a multiple of network.scale, 4, and at least 32"),
        ({"network": {"scale": 0}}, "network.scale: 0; it is a whole number from 1"),
        ({"network": {"scale": 2.5}}, r"network.scale: 2\.5; it is a whole number"),
    ],
)
@pytest.mark.parametrize("model", ["rrdb_x4_small", "rrdb_x4_gan_small"])
def test_slices_that_a_network_cannot_make_larger_by_its_scale_are_refused(model, change, message):
    config = copy.deepcopy(load_config([])) | {"overrides": {"models": {model: change}}}
    with pytest.raises(RecipeError, match=rf"{model}: {message}"):
        load_recipes(config)


def test_what_a_training_sees_is_said_in_words():
    models = load_recipes(load_config([])).models
    assert models["edsr"].data.words == "T1w slices"
    assert models["edsr_labels"].data.words == "slices painted from synthseg in any contrast"
    assert models["rrdb_small"].data.words == "slices painted from synthseg in T1w"


def test_recipes_name_the_profiles_that_there_are():
    assert PROFILES == profiles.PROFILES


def test_every_degradation_of_the_papers_is_named():
    """x2 to x7 of three, two and one scan, isotropic 2 to 4, through-plane x4, rows 2, 4, 8; three profiles each."""
    names = load_recipes(load_config([])).degradations
    for profile in ("box", "gaussian", "zoom"):
        for factor in range(2, 8):
            stacks = [
                len(names[f"{views}_x{factor}_{profile}"].stacks) for views in ("orthogonal", "axial_coronal", "axial")
            ]
            assert stacks == [3, 2, 1]
        assert all(names[f"isotropic_x{factor}_{profile}"].noise_percent == 0 for factor in (2, 2.5, 3, 3.5, 4))
        assert all(names[f"rows_x{factor}_{profile}"].stacks[0].thickness == 1 for factor in (2, 4, 8))
        assert [names[f"orthogonal_x5_{profile}_noise{p}"].noise_percent for p in range(1, 6)] == [1, 2, 3, 4, 5]
    assert names["through_plane_x4"].kind == "acquired"


def test_scans_that_are_coarse_within_their_slices_are_named():
    names = load_recipes(load_config([])).degradations
    in_plane = {name: names[name] for name in ("inplane_x4", "inplane_x4_noise1", "inplane_x4_noise3")}
    assert [one.noise_percent for one in in_plane.values()] == [0, 1, 3]
    assert all(one.seen == {"in_plane"} and one.stacks[0].coarse == (0, 1) for one in in_plane.values())
    assert names["arssr_2x2x3.3_gaussian"].stacks[0].along == (2, 2, 3.3)
    assert names["axial_x3_box"].stacks[0].along == (1, 1, 3) and names["isotropic_x2_box"].stacks[0].along == (2, 2, 2)
    assert names["orthogonal_x4"].seen == names["acquired"].seen == {"edge_on"} and names["isotropic_x2_box"].seen == {
        None
    }


def test_a_model_serves_the_slices_that_it_was_trained_on_and_no_others():
    config = load_config([])
    data = {"data": {"view": "in_plane"}}
    config["overrides"] = {
        "models": {"edsr": data},
        "tables": {
            name: {"methods": ["spline", "slice_network"], "degradations": ["inplane_x4"], "expectations": []}
            for name, table in load_recipes(config).tables.items()
            if "slice_network" in table.methods
        },
    }
    load_recipes(config)
    config["overrides"]["tables"]["one_thick"]["degradations"] = ["axial_x4"]
    with pytest.raises(RecipeError, match="'axial_x4' have thick slices seen from the side"):
        load_recipes(config)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"derivatives/a.nii.gz": "mean"},
            r"ds000113\.bids_names: 'mean' \(of derivatives/a\.nii\.gz\) is not the BIDS",
        ),
        ({"a.nii.gz": "sub-01_ses-1_ses-2_T1w"}, r"of the form sub-<label>\[_ses-<label>\]"),
        ({"a.nii.gz": "sub-01_T1w", "b.nii.gz": "sub-01_T1w"}, r"a\.nii\.gz and b\.nii\.gz are both 'sub-01_T1w'"),
        ({"a.mgz": "sub-01_T1w"}, r"a\.mgz cannot be the scan 'sub-01_T1w'; name only NIfTI files"),
        ({"sub-01/anat/sub-01_T1w.nii.gz": "sub-01_rec-x_T1w"}, "none that has a BIDS name in its anat folder already"),
    ],
)
def test_wrong_names_for_scans_outside_bids_folders_are_refused(names, message):
    config = copy.deepcopy(load_config([]))
    config["overrides"] = {"datasets": {"ds000113": {"bids_names": names}}}
    with pytest.raises(RecipeError, match=message):
        load_recipes(config)
