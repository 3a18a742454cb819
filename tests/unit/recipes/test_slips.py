"""50 slips in recipes. Each is refused when they are read, or by a network on the meta device, by file and key."""

import copy

import pytest

from headsr import targets
from headsr.recipes import DataRecipe, RecipeError, build, load_config, load_recipes
from headsr.scans import read_scans

EXPECTATION = {"text": "x", "degradation": "orthogonal_x4", "method": "tikhonov", "than": "average", "at_least": 0.0}
SLIPS = [
    # The 24 that earlier recipes accepted.
    ("models.edsr.network", {"architecture": "swin", "channels": 64}, r"architecture: unknown architecture 'swin'"),
    ("models.edsr.losses", {"l2": 1.0}, r"models/edsr\.yaml: edsr\.losses: unknown loss 'l2'; known: l1, "),
    ("models.edsr.precision", "fp8", r"edsr\.precision: unknown precision 'fp8'"),
    ("models.edsr.ema_decay", 5.0, r"edsr\.ema_decay: 5 is out of range"),
    ("models.edsr.optimizer.learning_rate", -1.0, r"optimizer\.learning_rate: -1 is out of range"),
    ("models.edsr.budget", {"steps": -1, "batch": 16}, r"edsr\.budget\.steps: -1 is out of range"),
    ("models.edsr.budget", {"steps": 10, "batch": 0}, r"edsr\.budget\.batch: 0 is out of range"),
    ("models.ldm.budget.segments", 0, r"ldm\.budget\.segments: 0 is out of range"),
    ("models.ldm.autoencoder", "", r"ldm\.autoencoder: unknown model ''"),
    ("models.ldm.autoencoder", "edsr", r"ldm\.autoencoder: 'edsr' is of kind baseline; it must be of kind autoencoder"),
    ("models.edsr.data.suffixes", ["T1W"], r"data\.suffixes\[0\]: unknown suffixes 'T1W'; did you mean 'T1w'"),
    ("blind.thick_slices.first.blur_probability", 7.0, r"thick_slices\.first\.blur_probability: 7 is out of range"),
    ("blind.thick_slices.first.blur_kernels", {"isotropc": 1.0}, r"'isotropc'; did you mean 'isotropic'"),
    ("blind.thick_slices.first.noise_sigma", [0.5, 0.1], r"first\.noise_sigma: \[0\.5, 0\.1\] goes down"),
    ("blind.thick_slices.order", "shufled", r"thick_slices\.order: unknown order 'shufled'; did you mean 'shuffled'"),
    ("methods.inr.fit.field", {"cels": [8, 4]}, r"inr\.fit\.field: unknown key 'cels'; did you mean 'cells'"),
    ("methods.inr.fit.steps", -8, r"inr\.fit\.steps: -8 is out of range"),
    ("methods.inr_prior.prior", "edsr", r"inr_prior\.prior: 'edsr' is of kind baseline; it must be of kind ldm"),
    ("methods.tikhonov.weight", -1.0, r"tikhonov\.weight: -1 is out of range"),
    ("methods.tikhonov.iterations", 0, r"tikhonov\.iterations: 0 is out of range"),
    ("tables.three_orthogonal.split", "tst", r"split: unknown split 'tst'; did you mean 'test'"),
    ("tables.three_orthogonal.suffixes", ["T1W"], r"suffixes\[0\]: unknown suffixes 'T1W'; did you mean 'T1w'"),
    ("tables.three_orthogonal.expectations", [{**EXPECTATION, "than": "avrage"}], r"than: unknown method 'avrage'"),
    # 24 more.
    ("models.edsr.kind", "basline", r"edsr\.kind: unknown kind 'basline'; did you mean 'baseline'"),
    ("models.edsr.optimiser", {"learning_rate": 0.1}, r"edsr: unknown key 'optimiser'; did you mean 'optimizer'"),
    ("models.edsr.optimizer.learning_rate", "1e-4", r"learning_rate: '1e-4' is text to YAML"),
    ("models.edsr.optimizer.betas", [0.9], r"betas: needs 2 values, not 1"),
    ("models.edsr.optimizer.betas", [0.9, 1.0], r"betas\[1\]: 1 is out of range; it must be at least 0 and below 1"),
    ("models.edsr.schedule.shape", "linear", r"schedule\.shape: unknown shape 'linear'"),
    ("models.edsr.data.degradation", "thick_slice", r"unknown blind 'thick_slice'; did you mean 'thick_slices'"),
    ("models.edsr.data.datasets", ["ds00113"], r"unknown dataset 'ds00113'; did you mean 'ds000113'"),
    ("models.edsr.data.kind", "patches", r"edsr\.data: unknown key 'crop'"),
    ("models.edsr.data.crop", 0, r"data\.crop: 0 is out of range"),
    ("models.edsr.network.architecture", "kl", r"unknown architecture 'kl'; known: residual2d"),
    ("models.edsr.losses", {"l1": 0.0, "gradient": 0.0, "wavelet": 0.0}, r"at least one weight must be above 0"),
    ("models.edsr.losses.kl", 1.0, r"edsr: losses\.kl: unknown loss of a baseline 'kl'"),
    ("models.edsr.losses.l1", float("nan"), r"losses\.l1\.weight: nan is out of range"),
    ("models.edsr.seed", -3, r"edsr\.seed: -3 is out of range"),
    ("models.edsr.seed", 1.5, r"edsr\.seed: 1\.5 is not int"),
    ("blind.thick_slices.pool", 33, r"edsr: the pool of 'thick_slices', 33 pairs, must be a multiple of budget\.batch"),
    ("blind.thick_slices.first.noise_kinds", {"rician": 0.0, "gaussian": 0}, r"at least one weight must be above 0"),
    ("methods.inr.fit.prior_weight", 0.1, r"inr: fit\.prior_weight: weighs a prior, and none is named"),
    ("methods.inr.fit.field.cells", [8, 4], r"inr\.fit\.field: cells \(8, 4\) and features .* must pair up"),
    ("methods.inr_prior.fit.prior_noise", [0.4, 0.02], r"prior_noise: \[0\.4, 0\.02\] goes down"),
    ("models.edsr.optimizer.clip", float("inf"), r"optimizer\.clip: inf is out of range"),
    ("models.slice_encoder.budget.batch", 1, r"slice_encoder: budget\.batch: every second crop is degraded"),
    ("tables.one_thick.columns", ["psrn"], r"columns\[0\]\.metric: unknown metric 'psrn'; did you mean 'psnr'"),
    ("tables.one_thick.columns", [{"metric": "psnr", "mask": "brian"}], r"unknown mask 'brian'; did you mean 'brain'"),
    ("tables.one_thick.methods", [], r"one_thick: methods: name at least one"),
    ("tables.one_thick.suffixes", ["FLAIR"], r"'one_thick' is about no scan: .*FLAIR.*ds000113 T1w test"),
    ("tables.../../x", {"title": "x"}, r"'\.\./\.\./x' is no name"),
    ("datasets.ds000113.splits", {"test": ["01", 2]}, r"splits\.test\[1\]: 2 is no text to YAML; put it in quotes"),
    ("datasets.ds000113.version", 1.0, r'version: 1\.0 is no text to YAML; put it in quotes .*"1\.0"'),
]  # fmt: skip


def with_slip(path, value):
    config = copy.deepcopy(load_config([]))
    block = config.setdefault("overrides", {})
    part, rest = path.split(".", 1)
    *parents, last = [rest] if rest.startswith("..") else rest.split(".")
    for name in (part, *parents):
        block = block.setdefault(name, {})
    block[last] = copy.deepcopy(value)
    return config


@pytest.mark.parametrize(("path", "value", "message"), SLIPS, ids=[f"{path}={value}"[:60] for path, value, _ in SLIPS])
def test_a_slip_is_refused_by_file_and_key(path, value, message):
    config = with_slip(path, value)
    with pytest.raises(ValueError, match=message) as refused:
        targets.all_units(config["tables"], load_recipes(config), read_scans(config["scans"]))
    assert not isinstance(refused.value, RecipeError) or str(refused.value).startswith("config/")


def test_without_a_slip_there_are_volumes():
    config = load_config([])
    assert targets.all_units(config["tables"], load_recipes(config), read_scans(config["scans"]))


@pytest.mark.parametrize(("key", "pair"), [("scans", [3, 1]), ("factor", [6, 2]), ("noise", [0.03, 0.0])])
def test_the_ranges_of_a_study_rise(key, pair):
    block = {"kind": "studies", "suffixes": ["T1w"], "block": [8, 8, 8], key: pair}
    with pytest.raises(RecipeError, match=rf"data\.{key}: .* goes down"):
        build(DataRecipe, block, "data")


def test_models_that_need_each_other_are_refused():
    config = with_slip("models.one", {**load_config([])["recipes"]})
    model = {
        "kind": "autoencoder",
        "network": {"architecture": "kl"},
        "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 8, "degradation": "thick_slices"},
        "budget": {"steps": 1, "batch": 1},
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"shape": "constant"},
        "seed": 0,
    }
    config["overrides"]["models"] = {
        one: {**model, "losses": {"l1": 1.0, "perceptual": {"weight": 1.0, "features": other}}}
        for one, other in ("ab", "ba")
    }
    with pytest.raises(RecipeError, match=r"config/models: (a needs b needs a|b needs a needs b): none of them"):
        load_recipes(config)


@pytest.mark.parametrize("part", ["datasets", "degradations", "blind", "models", "methods", "tables"])
@pytest.mark.parametrize(
    "name",
    ["`touch x`", "$(touch x)", "../../x", "x/y", "..", "a..b", "a.", "-x", "a b", "a;b", "a\n", "é", "", "a" * 101],
)
def test_what_becomes_part_of_paths_and_commands_is_a_name(part, name):
    config = load_config([])
    config.setdefault("overrides", {}).setdefault(part, {})[name] = {}
    with pytest.raises(RecipeError, match="is no name") as refused:
        load_recipes(config)
    assert str(refused.value).startswith(config["recipes"][part]) and "\n" not in str(refused.value)


def test_datasets_are_letters_and_digits_before_anything_is_pinned():
    config = load_config([])
    config["overrides"] = {"datasets": {"my_heads": {"url": "x", "version": "v1", "license": "x", "citation": "x"}}}
    with pytest.raises(RecipeError, match=r"datasets\.yaml: 'my_heads' is no name of a dataset; .* letters and digits"):
        load_recipes(config)


@pytest.mark.parametrize("key", ["results", "clones"])
@pytest.mark.parametrize(
    "path", ["", "  ", "/", "//", None, 5, "`touch x`", "$(touch x)", "{x}", "a\nb", 'a"b', "pyproject.toml"]
)
def test_what_is_written_to_is_a_folder(key, path):
    config = load_config([]) | {key: path}
    with pytest.raises(RecipeError, match=rf"^config: {key}: "):
        load_recipes(config)


@pytest.mark.parametrize("key", ["results", "clones"])
def test_a_folder_that_is_not_said_is_missed_by_its_name(key):
    config = load_config([])
    del config[key]
    with pytest.raises(RecipeError, match=f"^config: the key '{key}' is missing"):
        load_recipes(config)


@pytest.mark.parametrize("path", ["results", "/tmp/my results (2)", "../größe/x", "out/"])
def test_folders_may_have_any_other_name(path):
    load_recipes(load_config([]) | {"results": path})
