"""The table that pins label maps."""

import dataclasses
import re

import pytest

from headsr.files import UnreadableError
from headsr.labelmaps import COLUMNS, FILE_PATTERN, LabelMapsError, PinnedMap, read_maps, synthseg_labels, write_maps
from headsr.recipes import LabelMaps, load_config, load_recipes
from headsr.scans import PINNED_PATTERN
from headsr.simulate.labels import read_structures

MAP = PinnedMap("synthseg", "sub-01", "data/maps/training_seg_01.nii.gz", "GIT-s9--0123", 9, "train")
OTHER = dataclasses.replace(MAP, subject="sub-02", path="data/maps/b.nii.gz", split="val")


def test_what_is_written_is_read_in_the_order_of_names(tmp_path):
    table = tmp_path / "labelmaps.tsv"
    write_maps(table, [OTHER, MAP])
    assert read_maps(table) == (MAP, OTHER)
    assert table.read_text().splitlines()[1] == f"synthseg\tsub-01\t{MAP.path}\tGIT-s9--0123\t9\ttrain"


def test_a_map_is_known_by_its_dataset_and_subject_and_is_no_scan():
    assert (MAP.name, MAP.place) == ("synthseg/sub-01", "synthseg/sub-01/sub-01_dseg")
    assert re.fullmatch(FILE_PATTERN, "sub-01_dseg") and not re.fullmatch(PINNED_PATTERN, "sub-01_dseg")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("dataset", "syn/thseg", r"line 2: 'syn/thseg' is no dataset"),
        ("subject", "sub-01_T1w", r"line 2: 'sub-01_T1w' is no subject"),
        ("subject", "../x", r"line 2: '\.\./x' is no subject"),
        ("split", "test", r"line 2: split 'test' must be one of train, val, unused"),
        ("key", "", r"line 2: key or bytes is missing\. Repair"),
        ("bytes", "many", r"line 2: key or bytes is missing"),
    ],
)
def test_a_wrong_row_is_refused_by_its_line(tmp_path, column, value, message):
    table = tmp_path / "labelmaps.tsv"
    row = {name: str(getattr(MAP, name)) for name in COLUMNS} | {column: value}
    table.write_text("\t".join(COLUMNS) + "\n" + "\t".join(row.values()) + "\n")
    with pytest.raises(LabelMapsError, match=rf"^{re.escape(str(table))}, {message}"):
        read_maps(table)


def test_a_table_that_is_none_is_refused(tmp_path):
    table = tmp_path / "labelmaps.tsv"
    with pytest.raises(LabelMapsError, match=r"does not exist\. Write it with: headsr pin"):
        read_maps(table)
    table.write_text("dataset\tpath\n")
    with pytest.raises(LabelMapsError, match=r"its columns must be dataset subject path key bytes split"):
        read_maps(table)
    table.write_text("\t".join(COLUMNS) + "\nsynthseg\tsub-01\n")
    with pytest.raises(UnreadableError, match=r"line 2: the row does not have 6 columns"):
        read_maps(table)
    write_maps(table, [MAP, dataclasses.replace(OTHER, subject="sub-01")])
    with pytest.raises(LabelMapsError, match=r"synthseg/sub-01 is listed twice, as .*01\.nii\.gz and .*b\.nii\.gz"):
        read_maps(table)


def test_the_shipped_table_is_of_the_shipped_label_maps():
    datasets = load_recipes(load_config([])).datasets
    for one in read_maps("config/labelmaps.tsv"):
        assert isinstance(datasets[one.dataset], LabelMaps)
        assert datasets[one.dataset].maps[one.path] == one.subject
        assert one.subject in datasets[one.dataset].splits[one.split]


def test_the_shipped_labels_are_those_of_synthseg_under_its_licence():
    structures = {structure.label: structure for structure in read_structures(synthseg_labels())}
    assert len(structures) == 54 and structures[0].tissue == "air"
    assert structures[2].prior == structures[41].prior == (160.29, 21.66, 15.63, 5.48)  # white matter, left and right
    assert structures[3].group == structures[17].group  # cortex and hippocampus are as bright as each other
    said = synthseg_labels().with_suffix(".LICENSE").read_text()
    assert "Apache License, Version 2.0" in said and "Copyright 2020 Benjamin Billot" in said
