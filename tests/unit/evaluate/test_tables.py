"""Tables: means over the right scans, and expectations that are judged by the measured number."""

import csv

import pytest

from headsr.evaluate.collect import COLUMNS, Score, read_scores
from headsr.evaluate.tables import Cell, cell_of, judge, make_table
from headsr.recipes import RecipeError, Table


def score(method, scan, psnr, *, variant="unprojected", mask="head", suffix="T1w"):
    return Score(
        "demo", scan, suffix, method, "axial_x4", variant, mask, psnr, 0.9, 0.1, 1.0, "box", "0", "", "key"
    )  # fmt: skip


def table(*expectations, suffixes=("T1w",)):
    return Table("One thick scan", ("spline", "inr"), ("axial_x4",), suffixes, expectations=expectations)


GAIN = {"text": "above", "degradation": "axial_x4", "method": "inr", "than": "spline", "at_least_db": 3.0}
ROWS = [
    score("spline", "sub-06", 20.0),
    score("spline", "sub-07", 22.0),
    score("inr", "sub-06", 23.5),
    score("inr", "sub-07", 24.5),
    score("spline", "sub-06", 21.0, variant="projected"),
    score("inr", "sub-06", 25.0, variant="projected"),
]


def write(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
    return path


def test_mean_deviation_and_number():
    cell = cell_of(ROWS[:2], "psnr")
    assert (cell.mean, cell.n) == (21.0, 2)
    assert cell.std == pytest.approx(2**0.5)
    assert cell.text("psnr") == "21.00 ± 1.41"
    assert Cell(21.0, float("nan"), 1).text("psnr") == "21.00"
    assert cell_of([], "psnr") is None


def test_reached_or_not_by_the_measured_number():
    (outcome,) = judge("t", table(GAIN), ROWS)
    assert outcome.measured == {"unprojected": pytest.approx(3.0), "projected": pytest.approx(4.0)}
    assert outcome.reached
    assert outcome.scans == 2
    (missed,) = judge("t", table(GAIN | {"at_least_db": 3.01}), ROWS)
    assert missed.verdict == "NOT reached"
    assert "+3.00 dB as estimated" in missed.sentence
    (other,) = judge("t", table(GAIN | {"at_least_db": 3.9, "variant": "projected"}), ROWS)
    assert other.reached


def test_a_loss_that_is_allowed():
    rows = [score("spline", "sub-06", 30.0), score("inr", "sub-06", 29.85)]
    assert judge("t", table(GAIN | {"at_least_db": -0.2}), rows)[0].reached
    assert not judge("t", table(GAIN | {"at_least_db": -0.1}), rows)[0].reached


def test_only_scans_that_both_methods_have():
    rows = [*ROWS[:3], score("spline", "sub-08", 99.0)]
    (outcome,) = judge("t", table(GAIN), rows)
    assert outcome.measured["unprojected"] == pytest.approx(3.5)
    assert outcome.scans == 1


def test_nothing_measured_is_not_reached():
    (outcome,) = judge("t", table(GAIN), ROWS[:2])
    assert not outcome.reached
    assert outcome.verdict == "NOT measured"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at_least": 1.0}, "unknown key 'at_least'"),
        ({"method": "inrr"}, "'inrr' is not in this table"),
        ({"variant": "both"}, "unprojected, projected"),
        ({"degradation": "x8"}, "axial_x4"),
    ],
)
def test_a_wrong_expectation_names_what_is_wrong(change, message):
    with pytest.raises(RecipeError, match=message):
        judge("thick", table(GAIN | change), ROWS)


def test_the_files(tmp_path):
    rows = [*ROWS, score("spline", "sub-99", 5.0), score("inr", "sub-06", 26.0, suffix="T2w")]
    make_table(
        "thick",
        table(GAIN, GAIN | {"text": "far above", "at_least_db": 9.0}, suffixes=("T1w", "T2w")),
        write(tmp_path / "scores.tsv", rows),
        titles={"inr": "INR", "spline": "Spline"},
        scans=["demo/sub-06_T1w", "demo/sub-07_T1w", "demo/sub-06_T2w"],
        tsv=tmp_path / "t.tsv",
        markdown=tmp_path / "t.md",
    )
    lines = list(csv.DictReader((tmp_path / "t.tsv").read_text().splitlines(), delimiter="\t"))
    assert [(line["method"], line["suffix"]) for line in lines] == [
        (method, suffix) for suffix in ("all", "T1w", "T2w") for method in ("spline", "inr")
    ]
    assert lines[0]["axial_x4.head.psnr.unprojected.mean"] == "21"
    assert lines[0]["axial_x4.head.psnr.unprojected.n"] == "2"
    assert lines[4]["axial_x4.head.psnr.unprojected.mean"] == "n/a"
    words = (tmp_path / "t.md").read_text()
    assert "| Spline | 21.00 ± 1.41 | 21.00 |" in words
    assert "- **reached**: above: measured +3.00 dB" in words
    assert "- **NOT reached**: far above: measured +3.00 dB" in words


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "scores.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match="its columns must be"):
        read_scores(tmp_path / "scores.tsv")
