import numpy as np
import pytest

from headsr.simulate.labels import LabelMapError, find_label_maps, read_structures, whole_numbers


def test_the_shared_table_reads_with_priors(ball_folder):
    structures = {s.label: s for s in read_structures(ball_folder / "labels.tsv")}
    assert structures[2].tissue == "white" and structures[2].prior == (160.0, 8.0, 10.0, 1.0)
    assert structures[4].group == structures[24].group == "1"
    assert structures[0].tissue == "air"


def test_the_table_of_bids_reads_without_priors(tmp_path):
    (tmp_path / "dseg.tsv").write_text("index\tname\tabbreviation\n0\tnothing\tBG\n1\tGrey Matter\tGM\n9\tthing\tWM\n")
    structures = read_structures(tmp_path / "dseg.tsv")
    assert [(s.label, s.tissue, s.prior) for s in structures] == [
        (0, "air", None),
        (1, "grey", None),
        (9, "white", None),
    ]


def test_a_tissue_column_goes_before_the_name(tmp_path):
    (tmp_path / "dseg.tsv").write_text("index\tname\ttissue\n1\tCSF of a kind\tvitreous\n")
    assert read_structures(tmp_path / "dseg.tsv")[0].tissue == "vitreous"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no table of labels"),
        ("number\tname\n1\tCSF\n", "needs the columns label"),
        ("index\tname\n1\tflux capacitor\n", r"label 1 \(flux capacitor\).*column tissue.*white"),
        ("index\tname\ttissue\n1\tCSF\twater\n", "water is no tissue"),
        ("index\tname\none\tCSF\n", "a whole number of at least 0 is needed"),
        ("index\tname\n1\tCSF\n1\tGM\n", "more than one row"),
    ],
)
def test_bad_tables_are_refused_with_the_way_out(tmp_path, content, message):
    (tmp_path / "labels.tsv").write_text(content)
    with pytest.raises(LabelMapError, match=message) as caught:
        read_structures(tmp_path / "labels.tsv")
    assert "labels.tsv" in str(caught.value)


def test_tables_are_found_beside_the_map_before_above_it(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_dseg.nii.gz").touch()
    with pytest.raises(LabelMapError, match=r"no table.*sub-01_dseg.tsv beside it, or labels.tsv"):
        find_label_maps(tmp_path)
    for table in (tmp_path / "dseg.tsv", tmp_path / "sub-01" / "labels.tsv", anat / "sub-01_dseg.tsv"):
        table.touch()
        assert find_label_maps(tmp_path) == [(anat / "sub-01_dseg.nii.gz", table)]


def test_what_is_no_folder_is_said(tmp_path):
    (tmp_path / "sub-01_dseg.nii.gz").touch()
    for name, said in (("sub-01_dseg.nii.gz", "is a file"), ("nope", "does not exist")):
        with pytest.raises(LabelMapError, match=rf"{name}: {said}\. Name a folder of label maps"):
            find_label_maps(tmp_path / name)


def test_no_map_and_two_tables_are_errors(tmp_path):
    with pytest.raises(LabelMapError, match="holds no label map"):
        find_label_maps(tmp_path)
    for name in ("sub-01_dseg.nii.gz", "labels.tsv", "dseg.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(LabelMapError, match="could both be its table"):
        find_label_maps(tmp_path)


def layout(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_table_is_about_the_maps_that_have_its_entities(tmp_path, caplog):
    """As fMRIPrep lays them out: one table for each of two kinds of maps at the root, and none for the third."""
    anat = tmp_path / "sub-01/anat"
    layout(anat, *(f"sub-01_{desc}dseg.nii.gz" for desc in ("", "desc-aseg_", "desc-aparcaseg_")))
    layout(tmp_path, "desc-aseg_dseg.tsv", "desc-aparcaseg_dseg.tsv")
    assert find_label_maps(tmp_path) == [
        (anat / f"sub-01_desc-{kind}_dseg.nii.gz", tmp_path / f"desc-{kind}_dseg.tsv") for kind in ("aparcaseg", "aseg")
    ]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"left out: {anat}/sub-01_dseg.nii.gz: no table says what its numbers mean")


def test_the_table_with_most_of_a_map_s_entities_goes_before(tmp_path):
    layout(
        tmp_path, "sub-01/sub-01_desc-aseg_dseg.nii.gz", "a_dseg.tsv", "sub-01/desc-aseg_dseg.tsv", "sub-01/b_dseg.tsv"
    )
    ((_, table),) = find_label_maps(tmp_path)
    assert table == tmp_path / "sub-01/desc-aseg_dseg.tsv"


def test_what_a_simulation_makes_is_not_what_it_is_made_of(tmp_path):
    out, partial = tmp_path / "out", tmp_path / ".out.partial-7"
    layout(tmp_path, "labels.tsv", "sub-01_dseg.nii.gz")
    for place in (out, partial):
        layout(place, "derivatives/truth/sub-01/anat/sub-01_dseg.nii.gz")
    maps = find_label_maps(tmp_path, leaving_out=out)
    assert maps == [(tmp_path / "sub-01_dseg.nii.gz", tmp_path / "labels.tsv")]
    assert len(find_label_maps(tmp_path)) == 2


def test_a_row_that_no_map_needs_may_say_no_tissue(tmp_path):
    table = tmp_path / "dseg.tsv"
    table.write_text("index\tname\n1\tLeft-Cerebral-Exterior\n2\tLeft-Cerebral-White-Matter\n")
    assert [s.label for s in read_structures(table, used={0, 2})] == [2]
    with pytest.raises(LabelMapError, match=r"label 1 \(Left-Cerebral-Exterior\)"):
        read_structures(table, used={0, 1})


def test_fractions_are_no_labels():
    np.testing.assert_array_equal(whole_numbers(np.array([0.0, 511.0], dtype=np.float32), "x"), [0, 511])
    with pytest.raises(LabelMapError, match=r"x: holds fractions"):
        whole_numbers(np.array([0.5], dtype=np.float32), "x")
