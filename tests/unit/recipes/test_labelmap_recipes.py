"""Slips in recipes of label maps and of what is trained on them: refused by file and key."""

import copy

import pytest

from headsr.recipes import (
    Dataset,
    DatasetRecipe,
    LabelMaps,
    RecipeError,
    build,
    load_config,
    load_recipes,
    plain,
    tracked,
)
from headsr.recipes.models import DataRecipe

MAPS = {
    "kind": "labelmaps",
    "url": "drawn",
    "version": "v1",
    "license": "x",
    "citation": "x",
    "maps": {"maps/a.nii.gz": "sub-01", "maps/b.nii.gz": "sub-02"},
    "splits": {"train": ["sub-01"], "val": ["sub-02"]},
}
STUDIES = {"kind": "studies", "source": "labels", "datasets": ["drawn"], "block": [8, 8, 8]}


def with_dataset(**change):
    config = copy.deepcopy(load_config([]))
    config["overrides"] = {"datasets": {"drawn": MAPS | change}}
    return config


def test_a_dataset_that_names_no_kind_is_of_scans_and_never_says_so():
    scans = {"url": "u", "version": "v1", "license": "x", "citation": "x"}
    one = build(DatasetRecipe, scans, "demo")
    assert one == build(DatasetRecipe, scans | {"kind": "scans"}, "demo") == Dataset("u", "v1", "x", "x")
    assert "kind" not in plain(one) and tracked(one) == {"url": "u", "version": "v1"}
    assert build(Dataset, plain(one), "demo") == one
    maps = build(DatasetRecipe, MAPS, "drawn")
    assert isinstance(maps, LabelMaps) and plain(maps)["kind"] == "labelmaps"
    assert build(DatasetRecipe, plain(maps), "drawn") == maps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "labelmap"}, r"drawn\.kind: unknown kind 'labelmap'; did you mean 'labelmaps'"),
        ({"bids_names": {}}, r"drawn: unknown key 'bids_names'"),
        ({"maps": {"a.nii.gz": "01"}}, r"drawn: maps: a\.nii\.gz: '01'; a NIfTI file is the head of a subject"),
        ({"maps": {"a.mgz": "sub-01"}}, r"drawn: maps: a\.mgz: 'sub-01'; a NIfTI file"),
        ({"maps": {"c.nii.gz": "sub-01"}}, r"drawn: maps: maps/a\.nii\.gz and c\.nii\.gz are both 'sub-01'"),
        ({"splits": {"train": ["sub-01"]}}, r"drawn: splits: gives no map to val"),
        ({"splits": {"val": ["sub-01"], "train": []}}, r"drawn: splits: gives no map to train"),
        ({"splits": {"train": ["sub-01"], "val": ["sub-01"]}}, r"drawn: splits: sub-01 is in two, train and val"),
        ({"splits": {"test": ["sub-01"]}}, r"drawn\.splits: unknown splits 'test'; known: train, val, unused"),
        ({"splits": {"train": ["sub-01"], "val": ["sub-2"]}}, r"drawn\.splits\.val: .*'sub-2'; did you mean 'sub-02'"),
        ({"table": "no.tsv"}, r"drawn\.table: no\.tsv is not there\. Leave the key out for SynthSeg's labels"),
    ],
)
def test_a_wrong_dataset_is_refused(change, message):
    config = with_dataset(**change)
    if "maps" in change:
        config["overrides"]["datasets"]["drawn"]["maps"] = MAPS["maps"] | change["maps"]
    with pytest.raises(RecipeError, match=rf"^config/datasets\.yaml: {message}"):
        load_recipes(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suffixes": ["CT"]}, r"data\.suffixes\[0\]: "),
        ({"datasets": []}, r"data: datasets: name the label maps to draw from, such as synthseg"),
        ({"source": "heads"}, r"data: suffixes: name at least one"),
    ],
)
def test_what_is_drawn_from_label_maps_names_datasets(change, message):
    assert build(DataRecipe, STUDIES, "data").drawn_from == "labelmaps"
    with pytest.raises(RecipeError, match=rf"^{message}"):
        build(DataRecipe, STUDIES | change, "data")


def test_slices_of_label_maps_are_refused():
    config = with_dataset()
    config["overrides"]["models"] = {"edsr": {"data": {"datasets": ["ds000113", "drawn"]}}}
    wanted = (
        r"edsr\.data\.datasets\[1\]: 'drawn' is of kind labelmaps; it must be of kind scans \(ds000113, .*\): data with"
    )
    with pytest.raises(RecipeError, match=rf"^config/models/edsr\.yaml: {wanted}"):
        load_recipes(config)


def test_labels_of_scans_are_refused():
    config = with_dataset()
    config["overrides"]["models"] = {"unrolled": {"data": {"datasets": ["drawn"]}}}
    assert load_recipes(config).models["unrolled"].data.datasets == ("drawn",)
    config["overrides"]["models"]["unrolled"]["data"] = {"datasets": ["ds000113"]}
    wanted = r"'ds000113' is of kind scans; it must be of kind labelmaps \(synthseg, drawn\): data with source"
    with pytest.raises(RecipeError, match=rf"unrolled\.data\.datasets\[0\]: {wanted}"):
        load_recipes(config)


def test_a_table_of_label_maps_is_refused():
    config = with_dataset()
    config["overrides"]["tables"] = {"one_thick": {"datasets": ["drawn"]}}
    with pytest.raises(
        RecipeError, match=r"one_thick\.datasets\[0\]: 'drawn' is of kind labelmaps; it must be of kind"
    ):
        load_recipes(config)
