"""Published values: a CSV that a table names, refused when the workflow is parsed where it cannot be meant."""

import copy

import pytest

from headsr.recipes import Column, RecipeError, load_config, load_recipes, tracked
from headsr.recipes.tables import read_published

HEAD = "method,degradation,metric,mask,value,source\n"


def with_published(path):
    config = copy.deepcopy(load_config([]))
    config["overrides"] = {"tables": {"one_thick": {"published": str(path)}}}
    return load_recipes(config)


def test_the_values_of_a_paper(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(HEAD + "spline,axial_x4,psnr,,30.5,table 2\ninr,axial_x4,ssim,brain,0.98,\n")
    recipes = with_published(path)
    first, second = read_published(path, recipes.tables["one_thick"])
    assert (first.method, first.column, first.value, first.source) == ("spline", Column("psnr"), 30.5, "table 2")
    assert second.column == Column("ssim", "brain")
    assert tracked(recipes.tables["one_thick"]) == tracked(load_recipes(load_config([])).tables["one_thick"])
    path.write_text("method,degradation,metric,mask,value\ninr,axial_x4,psnr,head,30\n")
    assert read_published(path, recipes.tables["one_thick"])[0].source == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"theirs\.csv: does not exist"),
        ("method,value\nspline,3\n", "its columns must be method,degradation,metric,mask,value,source"),
        (HEAD + "splin,axial_x4,psnr,head,30,\n", "line 2: unknown method of this table 'splin'; did you mean"),
        (HEAD + "spline,axial_x5,psnr,head,30,\n", "unknown degradation of this table 'axial_x5'; did you"),
        (HEAD + "spline,axial_x4,pnsr,head,30,\n", "line 2.metric: unknown metric 'pnsr'; did you mean 'psnr'"),
        (HEAD + "spline,axial_x4,psnr,haed,30,\n", "line 2.mask: unknown mask 'haed'; did you mean 'head'"),
        (HEAD + "spline,axial_x4,psnr,head,30.5 dB,\n", "line 2: '30.5 dB' is no number"),
        (HEAD + "spline,axial_x4,psnr,head,nan,\n", "line 2: 'nan' is no number"),
        (HEAD + "spline,axial_x4,psnr,head\n", "line 2: the row does not have 6 columns"),
        (HEAD + "spline,axial_x4,psnr,lesion,30,\n", "line 2: this table does not measure psnr in lesion"),
        (HEAD + 2 * "spline,axial_x4,psnr,head,30,\n", "line 3: spline on axial_x4 has a value already"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_table_and_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(RecipeError, match=message) as raised:
        with_published(tmp_path / "theirs.csv")
    assert str(raised.value).startswith("config/experiments.yaml: one_thick.published: ")
