"""Which scans a table is about."""

import dataclasses
from types import SimpleNamespace

import pytest

from headsr.labelmaps import PinnedMap
from headsr.recipes import Column, Expectation, Table, build, load_config, load_recipes
from headsr.recipes.models import DataRecipe
from headsr.scans import Scan, companion_name, parse_name, read_scans
from headsr.targets import (
    all_units,
    anatomy,
    companions,
    keys_of_training,
    mask,
    masks_figures,
    measured,
    refuse_models_without_data,
    scans_of,
    scores,
    studies,
    training_maps,
    training_scans,
    units_of,
    views_of,
)

TABLE = Table(title="Any", methods=("spline",), degradations=("axial_x4",), suffixes=("T1w",))


def scan(dataset: str, subject: str, suffix: str = "T1w", split: str = "test") -> Scan:
    path = f"{subject}/anat/{subject}_{suffix}.nii.gz"
    return Scan(dataset, subject, subject, suffix, path, f"MD5E-s1--{dataset}{subject}", 1, "", split)


def named(name: str) -> Scan:
    subject, stem, suffix = parse_name(name)
    return Scan("a", subject, stem, suffix, f"any/{name}.nii.gz", f"MD5E-s1--{name}", 1, "", "test")


SCANS = (scan("a", "sub-1"), scan("a", "sub-2", split="train"), scan("a", "sub-3", suffix="T2w"), scan("b", "sub-1"))


def names_of(table: Table) -> list[str]:
    return [one.name for one in scans_of(table, SCANS)]


def test_a_table_is_about_its_split_suffixes_and_datasets():
    assert names_of(TABLE) == ["a/sub-1_T1w", "b/sub-1_T1w"]
    assert names_of(dataclasses.replace(TABLE, datasets=("b",))) == ["b/sub-1_T1w"]
    assert names_of(dataclasses.replace(TABLE, datasets=("a", "b"), suffixes=("T2w",))) == ["a/sub-3_T2w"]
    assert names_of(dataclasses.replace(TABLE, scans=("b/sub-1_T1w",))) == ["b/sub-1_T1w"]


@pytest.mark.parametrize("change", [{"datasets": ("a",)}, {"suffixes": ("T2w",)}, {"split": "val"}])
def test_a_named_scan_outside_the_table_is_refused(change):
    with pytest.raises(ValueError, match=r"'Any' names scans that are not in .*: b/sub-1_T1w"):
        names_of(dataclasses.replace(TABLE, scans=("b/sub-1_T1w",), **change))


def test_the_ultra_high_resolution_scans_are_in_their_own_table_alone():
    config = load_config([])
    recipes, scans = load_recipes(config), read_scans(config["scans"])
    assert {unit.scan.dataset for unit in all_units(config["tables"], recipes, scans)} == {"ds000113"}
    checks = all_units(["ultra_high_resolution"], recipes, scans)
    assert {unit.scan.dataset for unit in checks} == {"ds003563", "ds002179"}
    assert len(checks) == 3 * 10
    assert {one.dataset for one in training_scans(scans, recipes.models["edsr"])} == {"ds000113"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_model_without_scans_of_a_split_is_refused(split):
    config = load_config([])
    recipes, scans = load_recipes(config), read_scans(config["scans"])
    refuse_models_without_data(["edsr"], recipes, scans, [])
    left = [scan for scan in scans if scan.split != split]
    with pytest.raises(ValueError, match=rf"the model 'edsr' has no scan of split '{split}': it asks for suffixes T1w"):
        refuse_models_without_data(["edsr"], recipes, left, [])


def test_scans_taken_together_differ_in_acq_and_run_alone():
    names = ("sub-1_acq-axial_T1w", "sub-1_acq-coronal_run-2_T1w", "sub-1_ce-gadolinium_T1w", "sub-1_rec-mean_T1w")
    made = [named(name) for name in (*names, "sub-1_acq-axial_T2w", "sub-2_acq-axial_T1w", "sub-1_ses-b_T1w")]
    found = studies(reversed(made))
    assert found[made[0]] == found[made[1]] == made[:2]
    assert all(found[one] == [one] for one in made[2:])
    assert studies([made[0], dataclasses.replace(made[1], split="unused")])[made[0]] == [made[0]]


def test_scans_taken_together_are_one_unit_and_one_list_of_low_resolution_scans():
    recipes = load_recipes(load_config([]))
    made = [named(f"sub-1_run-{run}_T1w") for run in (1, 2, 3)]
    table = dataclasses.replace(TABLE, degradations=("acquired", "acquired_together"))
    assert [(unit.degradation, unit.scan) for unit in units_of(table, recipes, made)] == [
        *(("acquired", one) for one in made),
        ("acquired_together", made[0]),
    ]
    assert views_of("acquired_together", recipes, made) == ["acquired", "acquired2", "acquired3"]
    assert views_of("acquired", recipes, made) == views_of("acquired_together", recipes, made[:1]) == ["acquired"]
    assert views_of("axial_x4", recipes, made) == ["axial"]


def test_one_measurement_that_is_pinned_twice_is_not_taken_together_with_itself():
    """nipreps/fmriprep#2227: one acquisition, twice in the dataset, was averaged as if it were two."""
    recipes = load_recipes(load_config([]))
    made = [named("sub-1_run-1_T1w"), dataclasses.replace(named("sub-1_run-2_T1w"), key="MD5E-s1--sub-1_run-1_T1w")]
    apart, together = (dataclasses.replace(TABLE, degradations=(name,)) for name in ("acquired", "acquired_together"))
    assert [unit.scan for unit in units_of(apart, recipes, made)] == made
    with pytest.raises(ValueError, match=r"a/sub-1_run-1_T1w and a/sub-1_run-2_T1w have one content.*unused"):
        units_of(together, recipes, made)
    assert len(units_of(together, recipes, [made[0], dataclasses.replace(made[1], split="unused")])) == 1


def test_the_masks_of_every_scan_that_is_used_are_drawn_once():
    recipes = load_recipes(load_config([]))
    made = [named(f"sub-1_run-{run}_T1w") for run in (1, 2)]
    thick = dataclasses.replace(TABLE, methods=("spline", "inr"), degradations=("axial_x4", "orthogonal_x4"))
    together = dataclasses.replace(TABLE, degradations=("acquired_together",))
    units = units_of(thick, recipes, made[:1])
    assert list(masks_figures("r", units, recipes, made)) == ["a/sub-1_run-1_T1w"]
    found = masks_figures("r", units_of(together, recipes, made), recipes, made)
    assert list(found) == ["a/sub-1_run-1_T1w", "a/sub-1_run-2_T1w"]
    assert found["a/sub-1_run-2_T1w"] == "r/figures/a/sub-1/sub-1_run-2_desc-masks_T1w.png"


PSNR, LESION = Column("psnr"), Column("psnr", "lesion")


def companion_of(scan: Scan, kind: str = "lesion", split: str = "used") -> Scan:
    stem, suffix = companion_name(scan, kind)
    key = f"MD5E-s1--{kind}{scan.name}"
    return Scan(scan.dataset, scan.subject, stem, suffix, f"any/{stem}.nii.gz", key, 1, "", split, of=scan.name)


def asked(*tables: Table, pins: tuple[Scan, ...] = ()) -> dict[tuple[str, str], dict]:
    """What is measured by voxels, by method and scan."""
    found = measured(tables, load_recipes(load_config([])), SCANS, companions(pins))
    return {(unit.method, unit.scan.name): families["voxels"] for unit, families in found.items()}


def test_a_volume_is_measured_by_what_its_tables_show_and_expect():
    wide = dataclasses.replace(TABLE, methods=("spline", "tikhonov"), columns=(PSNR, Column("ssim", "brain")))
    gain = Expectation(
        text="x", degradation="axial_x4", method="spline", than="spline", at_least=0.0, metric="nrmse", mask="brain"
    )
    narrow = dataclasses.replace(TABLE, datasets=("a",), columns=(Column("ssim"),), expectations=(gain,))
    both = asked(wide, narrow)
    assert both["tikhonov", "a/sub-1_T1w"] == both["spline", "b/sub-1_T1w"] == {"psnr": ["head"], "ssim": ["brain"]}
    assert both["spline", "a/sub-1_T1w"] == {"nrmse": ["brain"], "psnr": ["head"], "ssim": ["brain", "head"]}


def test_a_metric_more_in_a_table_changes_what_is_measured_of_its_volumes_alone():
    other = dataclasses.replace(TABLE, suffixes=("T2w",))
    before = asked(dataclasses.replace(TABLE, columns=(PSNR,)), other)
    after = asked(dataclasses.replace(TABLE, columns=(PSNR, Column("ssim"))), other)
    assert {unit for unit in before if before[unit] != after[unit]} == {("spline", f"{d}/sub-1_T1w") for d in "ab"}


def test_nothing_is_measured_where_the_truth_is_not_known():
    assert asked(dataclasses.replace(TABLE, degradations=("acquired",))) == {}


def test_the_lesion_of_one_head_never_scores_another():
    table = dataclasses.replace(TABLE, columns=(PSNR, LESION))
    pins = (companion_of(SCANS[0]), companion_of(SCANS[1]), companion_of(SCANS[2]))  # sub-1 of a, but not of b
    found = asked(table, pins=pins)
    assert found["spline", "a/sub-1_T1w"] == {"psnr": ["head", "lesion"]}
    assert found["spline", "b/sub-1_T1w"] == {"psnr": ["head"]}
    assert mask("r", SCANS[0], "lesion") == "r/preprocessed/a/sub-1/sub-1_label-lesion_desc-T1w_mask.nii.gz"
    rejected = (companion_of(SCANS[0], split="unused"),)
    assert asked(table, pins=rejected) == asked(dataclasses.replace(TABLE, columns=(PSNR,)))
    lesions = dataclasses.replace(TABLE, columns=(LESION,))
    only = measured([lesions], load_recipes(load_config([])), SCANS, companions(pins))
    assert scores("r", only) == ["r/scores/voxels/spline/axial_x4/a/sub-1/sub-1_T1w.json"]


HEADS = (*(scan("a", f"sub-{n}", split=split) for n, split in enumerate(("train", "train", "val", "test"))),)
STUDIES = {"kind": "studies", "suffixes": ["T1w"], "block": [8, 8, 8]}


def models(**change) -> SimpleNamespace:
    """As much of the recipes as the scans of a model follow from."""
    data = build(DataRecipe, STUDIES | change, "data")
    return SimpleNamespace(models={"made_up": SimpleNamespace(kind="baseline", data=data)})


def test_a_model_is_trained_on_the_scans_of_its_suffixes():
    assert training_scans(HEADS, models().models["made_up"]) == list(HEADS[:3])
    assert keys_of_training(["made_up"], [], models(), HEADS, MAPS)["made_up"] == [one.key for one in HEADS[:3]]


SPLITS = ("train", "train", "val", "unused")
MAPS = [
    PinnedMap(dataset, f"sub-{n}", f"any/{n}.nii.gz", f"GIT-s1--{dataset}{n}", 1, split)
    for dataset in ("drawn", "other")
    for n, split in enumerate(SPLITS)
]


def of_labels(*datasets: str) -> SimpleNamespace:
    return models(source="labels", suffixes=[], datasets=list(datasets))


def test_a_model_of_labels_sees_the_label_maps_of_its_datasets_and_no_scan():
    model = of_labels("drawn").models["made_up"]
    assert training_maps(MAPS, model) == MAPS[:3] and training_scans(HEADS, model) == []
    assert training_maps(MAPS, of_labels("other", "drawn").models["made_up"]) == [*MAPS[:3], *MAPS[4:7]]
    assert training_maps(MAPS, models().models["made_up"]) == []
    keys = keys_of_training(["made_up"], [], of_labels("drawn"), HEADS, MAPS)["made_up"]
    assert keys == ["GIT-s1--drawn0", "GIT-s1--drawn1", "GIT-s1--drawn2"]
    assert anatomy("r", MAPS[0]) == "r/anatomies/drawn/sub-0.safetensors"


def test_a_model_of_labels_without_label_maps_is_refused_with_the_way_out():
    refuse_models_without_data(["made_up"], of_labels("drawn"), [], MAPS)
    for datasets in (("drawn",), ("other", "drawn")):
        with pytest.raises(ValueError, match=r"'made_up' learns from drawn, which is not pinned: headsr pin drawn"):
            refuse_models_without_data(["made_up"], of_labels(*datasets), HEADS, MAPS[4:])
    with pytest.raises(ValueError, match=r"no label map of split 'val': those of drawn are of others\. Change splits"):
        refuse_models_without_data(["made_up"], of_labels("drawn"), HEADS, MAPS[:2])
