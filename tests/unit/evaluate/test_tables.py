"""Tables: means over the right scans, expectations judged by the measured number, published values beside ours."""

import csv
from dataclasses import replace

import pytest

from headsr.evaluate.collect import COLUMNS, Score, read_scores
from headsr.evaluate.tables import (
    Cell,
    Measured,
    blocks_by_scan,
    blocks_of,
    cell_of,
    compare,
    judge,
    legend,
    make_table,
    unscored,
)
from headsr.parts import METRICS
from headsr.recipes import Column, Expectation, RecipeError, Table, build, plain
from headsr.recipes.tables import Published


def score(
    method, scan, value, *, degradation="axial_x4", variant="unprojected", mask="head", metric="psnr", suffix="T1w"
):
    return Score(
        "demo", scan, suffix, method, degradation, variant, mask, metric, value, 1.0, "box", "0", "", "key"
    )  # fmt: skip


def table(*expectations, suffixes=("T1w",), columns=("psnr", "ssim"), **more):
    return Table(
        title="One thick scan",
        methods=("spline", "inr"),
        degradations=("axial_x4",),
        suffixes=suffixes,
        columns=tuple(build(Column, column, "column") for column in columns),
        expectations=expectations,
        **more,
    )


GAIN = Expectation(text="above", degradation="axial_x4", method="inr", than="spline", at_least=3.0)
TITLES = {"inr": "INR", "spline": "Spline"}
ROWS = [
    score("spline", "sub-06", 20.0),
    score("spline", "sub-07", 22.0),
    score("inr", "sub-06", 23.5),
    score("inr", "sub-07", 24.5),
    score("spline", "sub-06", 21.0, variant="projected"),
    score("inr", "sub-06", 25.0, variant="projected"),
]


def measured(rows):
    return Measured(rows, {row.name for row in rows})


def write(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
    return path


def of_set(method, value, *, n=140, error=0.01, suffix="", name="one_thick", variant="unprojected"):
    return Score(
        "", name, suffix, method, "axial_x4", variant, "axial", "kid", value, 1.0, "", "", "", "", n, error
    )  # fmt: skip


def test_sets_of_slices_say_how_many_they_are():
    """Each suffix has a set of its own."""
    kid = {"metric": "kid", "mask": "axial"}
    both = table(suffixes=("T1w", "T2w"), columns=("psnr", kid), encoder="slice_encoder")
    sets = [of_set("inr", 0.25), of_set("inr", 0.5, n=70, suffix="T1w"), of_set("inr", 9.0, name="another")]
    found = Measured([*ROWS, *sets], [*(row.name for row in ROWS), "one_thick"])
    t1w, t2w = blocks_of(both, found, TITLES)
    assert (t1w.caption, t2w.caption) == ("axial_x4, T1w", "axial_x4, T2w")
    assert t1w.columns[3] == "KID axial, as estimated"
    assert t1w.rows[1] == ("INR", "24.00 ± 0.71", "25.00 (of 1)", "0.5000 ± 0.0100 (N 70)", "-", "2")
    assert t2w.rows[1][3] == "-"


def test_a_set_is_better_where_its_distance_is_smaller():
    kid = {"metric": "kid", "mask": "axial"}
    better = replace(GAIN, metric="kid", mask="axial", at_least=0.2)
    one = table(better, columns=(kid,), encoder="slice_encoder")
    (outcome,) = judge(one, Measured([of_set("spline", 0.5), of_set("inr", 0.25)], ["one_thick"]))
    assert outcome.reached
    assert outcome.sentence.endswith("sets: 1)")


def test_the_one_suffix_of_a_table_is_all_of_it():
    """There is one set then, that of all."""
    kid = {"metric": "kid", "mask": "axial"}
    better = replace(GAIN, metric="kid", mask="axial", at_least=0.2, suffix="T1w")
    one = table(better, columns=(kid,), encoder="slice_encoder")
    assert judge(one, Measured([of_set("spline", 0.5), of_set("inr", 0.25)], ["one_thick"]))[0].reached


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"metric": "kid"}, "mask: unknown place of kid 'head'; known: axial, coronal, sagittal"),
        ({"metric": "psnr", "mask": "axial"}, "mask: unknown place of psnr 'axial'; known: head, brain, lesion"),
    ],
)
def test_sets_are_measured_by_plane_and_volumes_inside_masks(block, message):
    with pytest.raises(RecipeError, match=message):
        build(Column, block, "column")
    with pytest.raises(RecipeError, match=message):
        build(Expectation, {**plain(GAIN), "mask": "head", **block}, "expectation")


def test_the_encoder_of_a_table_is_named_where_slices_are_compared_and_nowhere_else():
    with pytest.raises(ValueError, match="encoder: name the slice encoder by whose features kid compares slices"):
        table(columns=({"metric": "kid", "mask": "axial"},))
    with pytest.raises(ValueError, match="encoder: no column compares sets of slices; leave it out"):
        table(encoder="slice_encoder")


@pytest.mark.parametrize("key", ["methods", "degradations", "suffixes", "columns", "datasets", "scans"])
def test_what_a_table_names_twice_is_refused(key):
    """Its slices would count twice in a set."""
    with pytest.raises(ValueError, match=f"^{key}: .* is named twice"):
        replace(table(datasets=("demo",), scans=("demo/sub-06_T1w",)), **{key: 2 * table_value(key)})


def table_value(key):
    return getattr(table(datasets=("demo",), scans=("demo/sub-06_T1w",)), key)


def test_mean_deviation_and_number():
    cell = cell_of([20.0, 22.0])
    assert (cell.mean, cell.n) == (21.0, 2)
    assert cell.std == pytest.approx(2**0.5)
    assert cell.text("psnr") == "21.00 ± 1.41"
    assert Cell(21.0, float("nan"), 1).text("ssim") == "21.0000"
    assert cell_of([]) is None


def test_reached_or_not_by_the_measured_number():
    (outcome,) = judge(table(GAIN), measured(ROWS))
    assert outcome.measured == {"unprojected": pytest.approx(3.0), "projected": pytest.approx(4.0)}
    assert outcome.reached
    assert outcome.scans == 2
    (missed,) = judge(table(replace(GAIN, at_least=3.01)), measured(ROWS))
    assert missed.verdict == "NOT reached"
    assert "+3.00 dB as estimated" in missed.sentence
    (other,) = judge(table(replace(GAIN, at_least=3.9, variant="projected")), measured(ROWS))
    assert other.reached


def test_a_loss_that_is_allowed():
    rows = measured([score("spline", "sub-06", 30.0), score("inr", "sub-06", 29.85)])
    assert judge(table(replace(GAIN, at_least=-0.2)), rows)[0].reached
    assert not judge(table(replace(GAIN, at_least=-0.1)), rows)[0].reached


def test_better_is_smaller_where_the_metric_says_so():
    rows = measured([score("spline", "sub-06", 0.2, metric="nrmse"), score("inr", "sub-06", 0.05, metric="nrmse")])
    (outcome,) = judge(table(replace(GAIN, metric="nrmse", at_least=0.1)), rows)
    assert outcome.reached and outcome.measured["unprojected"] == pytest.approx(0.15)
    assert "measured +0.1500 as estimated (required: at least +0.1000;" in outcome.sentence
    assert not judge(table(replace(GAIN, metric="nrmse", at_least=0.2)), rows)[0].reached


def test_an_expectation_is_about_its_own_mask():
    rows = measured([*ROWS, score("spline", "sub-06", 9.0, mask="lesion"), score("inr", "sub-06", 19.0, mask="lesion")])
    (outcome,) = judge(table(replace(GAIN, mask="lesion")), rows)
    assert (outcome.measured["unprojected"], outcome.scans) == (10.0, 1)


def test_only_scans_that_both_methods_have():
    (outcome,) = judge(table(GAIN), measured([*ROWS[:3], score("spline", "sub-08", 99.0)]))
    assert outcome.measured["unprojected"] == pytest.approx(3.5)
    assert outcome.scans == 1


def test_nothing_measured_is_not_reached():
    (outcome,) = judge(table(GAIN), measured(ROWS[:2]))
    assert not outcome.reached
    assert outcome.verdict == "NOT measured"


def test_a_column_that_fewer_scans_have_says_so():
    lesions = {"metric": "psnr", "mask": "lesion"}
    rows = measured([*ROWS, score("spline", "sub-07", 11.0, mask="lesion")])
    (block,) = blocks_of(table(columns=("psnr", lesions)), rows, TITLES)
    assert block.columns[-3:] == ("PSNR (dB) lesion, as estimated", "PSNR (dB) lesion, projected", "Scans")
    assert block.rows[0] == ("Spline", "21.00 ± 1.41", "21.00 (of 1)", "11.00 (of 1)", "-", "2")
    assert block.rows[1][3:] == ("-", "-", "2")


def test_degradations_can_run_across():
    more = [score("inr", "sub-06", 31.0, degradation="axial_x2"), score("inr", "sub-06", 0.9, metric="ssim")]
    rows = measured([*ROWS, *more])
    wide = replace(table(columns=("psnr", "ssim")), degradations=("axial_x2", "axial_x4"), across="degradations")
    first, second = blocks_of(wide, rows, TITLES)
    assert (first.caption, second.caption) == ("PSNR (dB) head", "SSIM head")
    assert first.columns[1:-1] == tuple(f"{d}, {v}" for d in wide.degradations for v in ("as estimated", "projected"))
    assert first.rows[1] == ("INR", "31.00 (of 1)", "-", "24.00 ± 0.71", "25.00 (of 1)", "2")
    assert second.rows[1][3] == "0.9000"


def test_what_has_no_truth_is_left_out_and_said():
    for across in ("columns", "degradations"):
        mixed = replace(table(), degradations=("acquired", "axial_x4"), across=across)
        blocks = blocks_of(mixed, measured([replace(row, metric=m) for row in ROWS for m in ("psnr", "ssim")]), TITLES)
        assert all("acquired" not in text for block in blocks for text in (block.caption, *block.columns))
        assert all("-" not in row for block in blocks for row in block.rows)
    assert unscored(mixed, measured(ROWS)).startswith("Not scored: acquired. The truth of a scan is not known")
    assert unscored(table(), measured(ROWS)) == ""
    assert blocks_of(replace(table(), degradations=("acquired",)), measured([]), TITLES) == []


def test_every_scan_has_a_row_and_its_published_volumes_are_compared():
    rows = [*ROWS, score("inr", "sub-06", 26.0, variant="projected", suffix="T2w")]
    (block,) = blocks_by_scan(table(suffixes=("T1w", "T2w")), measured(rows), TITLES)
    assert block.caption == "axial_x4: PSNR (dB) head, projected"
    assert block.columns == ("Scan", "Spline", "INR")
    assert block.rows == [("demo/sub-06_T1w", "21.00", "25.00"), ("demo/sub-06_T2w", "-", "26.00")]


def test_gains_beside_the_published_ones():
    published = [
        Published("spline", "axial_x4", Column("psnr"), 30.0, "table 2"),
        Published("inr", "axial_x4", Column("psnr"), 34.0, "table 2"),
        Published("inr", "axial_x4", Column("nrmse"), 0.1, "table 3"),
    ]
    block = compare(table(), published, measured(ROWS), TITLES)
    assert block.columns[5:8] == ("Our gain over Spline", "Their gain over Spline", "Difference of gains")
    assert [row[0] for row in block.rows] == ["Spline", "INR", "INR"]
    assert [row[2:] for row in block.rows] == [
        ("PSNR (dB) head", "21.00 ± 1.41", "30.00", "+0.00 dB", "+0.00 dB", "+0.00 dB", "table 2"),
        ("PSNR (dB) head", "24.00 ± 0.71", "34.00", "+3.00 dB", "+4.00 dB", "-1.00 dB", "table 2"),
        ("NRMSE head", "-", "0.1000", "nothing", "nothing", "nothing", "table 3"),
    ]


def test_a_smaller_error_is_a_gain_for_them_too():
    nrmse = Column("nrmse")
    published = [Published(m, "axial_x4", nrmse, value, "") for m, value in (("spline", 0.3), ("inr", 0.1))]
    rows = [score(m, "sub-06", value, metric="nrmse") for m, value in (("spline", 0.4), ("inr", 0.1))]
    assert compare(table(), published, measured(rows), TITLES).rows[1][5:8] == ("+0.3000", "+0.2000", "+0.1000")


def test_the_files(tmp_path):
    rows = [*ROWS, score("spline", "sub-99", 5.0), score("inr", "sub-06", 26.0, suffix="T2w")]
    (tmp_path / "theirs.csv").write_text("method,degradation,metric,mask,value\ninr,axial_x4,psnr,,40.5\n")
    make_table(
        "one_thick",
        table(GAIN, replace(GAIN, text="far above", at_least=9.0), suffixes=("T1w", "T2w")),
        write(tmp_path / "scores.tsv", rows),
        titles=TITLES,
        scans=["demo/sub-06_T1w", "demo/sub-07_T1w", "demo/sub-06_T2w"],
        published=tmp_path / "theirs.csv",
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
    assert "| Spline | 21.00 ± 1.41 | 21.00 (of 1) |" in words
    assert "Data range 1." in words
    assert "larger is better" in words
    assert "| INR | axial_x4 | PSNR (dB) head | 24.67 ± 1.26 | 40.50 |" in words
    assert "- **reached**: above: measured +3.00 dB" in words
    assert "- **NOT reached**: far above: measured +3.00 dB" in words


def test_every_metric_can_head_a_column():
    assert all(metric.title for metric in METRICS.values())
    assert len(legend(METRICS)) == len(METRICS)
    assert legend(["nrmse"])[0].endswith("smaller is better")


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "scores.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match="its columns must be"):
        read_scores(tmp_path / "scores.tsv")


def test_what_people_write_is_text_in_markdown_and_no_column_or_tag(tmp_path):
    hostile = "a | b <script>alert(1)</script> [x](y) `id`\nnew \x1b[2J"
    write(tmp_path / "scores.tsv", ROWS)
    made = replace(table(replace(GAIN, text=hostile)), title=hostile)
    outputs = {"tsv": tmp_path / "t.tsv", "markdown": tmp_path / "t.md"}
    titles = dict.fromkeys(made.methods, hostile)
    make_table("t", made, tmp_path / "scores.tsv", titles=titles, scans=["demo/sub-06_T1w"], published=None, **outputs)
    text = outputs["markdown"].read_text()
    shown = r"a \| b \<script\>alert(1)\</script\> \[x\](y) \`id\` new \\x1b\[2J"
    assert text.startswith(f"# {shown}\n") and f": {shown}: measured" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and shown in line]
    heads = [line for line in text.splitlines() if line.startswith("| Method")]
    assert len(rows) == len(made.methods) * len(heads)
    assert {row.replace(r"\|", "").count("|") for row in rows} == {heads[0].count("|")}
