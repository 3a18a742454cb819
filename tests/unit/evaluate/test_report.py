"""The report: offline, small, truthful, whatever it is given."""

import re

import numpy as np
import pytest
from PIL import Image

from headsr.evaluate import report
from headsr.evaluate.collect import collect_scores
from headsr.evaluate.report import read_residuals, write_report
from headsr.files import write_json
from headsr.provenance import Record, write_record
from headsr.recipes import Recipes, Table, build, load_config, load_recipes, merged

GAIN = {"text": "the field is above <the> spline", "degradation": "axial_x4", "method": "inr", "than": "spline"}
CHANGES = {
    "degradations": {"axial_x4": {"seed": 11}},
    "models": {"ldm": {"seed": 12}, "kl_f4": {"seed": 14}},
    "methods": {"inr": {"prior": "ldm", "title": "INR with prior", "fit": {"prior_weight": 0.1, "seed": 13}}},
}


def recipes(at_least=1.0, **more):
    """The shipped recipes with seeds that can be told apart, and one table."""
    config = load_config([])
    shipped = load_recipes(config | {"overrides": merged(config["overrides"], CHANGES)})
    table = {
        "title": "One thick scan",
        "methods": ["spline", "inr"],
        "degradations": ["axial_x4"],
        "suffixes": ["T1w"],
        "columns": ["psnr", "ssim", {"metric": "psnr", "mask": "brain"}],
        "expectations": [{**GAIN, "at_least": at_least}],
        **more,
    }
    return Recipes(**{**vars(shipped), "tables": {"thick": build(Table, table, "thick")}})


@pytest.fixture
def inputs(tmp_path):
    paths = []
    for method, value in (("spline", 20.0), ("inr", 22.5)):
        measured = [("head", "psnr", value), ("head", "ssim", 0.9), ("brain", "psnr", value)]
        rows = [
            {"variant": variant, "mask": mask, "metric": metric, "value": number}
            for variant in ("unprojected", "projected")
            for mask, metric, number in measured
        ]
        unit = {"method": method, "degradation": "axial_x4", "dataset": "demo", "scan": "sub-06", "suffix": "T1w"}
        more = {"profile": "box", "seed": 0, "trained_on": [], "data_range": 1.0, "source_key": "k"}
        paths.append(tmp_path / f"{method}.json")
        write_json(paths[-1], {"unit": unit, **more, "rows": rows})
    collect_scores(paths, tmp_path / "scores.tsv")
    for name, outcome, after in (("good", "met", 0.0099), ("bad", "contradictory", 0.02)):
        numbers = {"allowed": 0.01, "rms_before": 0.04, "rms_after": after}
        numbers |= {"rms_before_everywhere": 0.03, "rms_after_everywhere": 0.007}
        content = {"projection": {"outcome": outcome}, "views": {"axial": numbers}}
        write_json(tmp_path / f"{name}.json", {"headsr": content})
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(tmp_path / "a.png")
    return {
        "title": "headsr <demo>",
        "recipes": recipes(),
        "tables": {"thick": ["demo/sub-06_T1w"]},
        "scores": tmp_path / "scores.tsv",
        "checks": {"spline axial_x4 demo/sub-06_T1w": tmp_path / "good.json", "inr axial_x4 x": tmp_path / "bad.json"},
        "volumes": {"spline axial_x4 demo/sub-06_T1w": tmp_path / "deriv é/sub-06.nii.gz"},
        "figures": {"demo/sub-06_T1w, axial_x4": tmp_path / "a.png"},
        "masks": {"demo/sub-06_T1w": tmp_path / "a.png"},
        "curves": tmp_path / "a.png",
        "rulegraph": tmp_path / "a.png",
        "records": tmp_path / "records",
        "published": {},
        "commit": "0123abc",
    }


def record(path, *warnings):
    write_record(path, Record("rule", 1, {}, {}, {}, {}, "0.1", "", list(warnings)))


def written(tmp_path, inputs, **change):
    write_report(tmp_path / "report.html", **(inputs | change))
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_section_and_nothing_from_elsewhere(tmp_path, inputs):
    html = written(tmp_path, inputs)
    for section in report._SECTIONS:
        assert f'id="{section}"' in html
    assert "http" not in html
    assert "No warnings" in html
    assert html.count("Research use only, not for clinical use") == 2
    assert html.count("data:image/png;base64,") == 4
    assert "0123abc" in html
    assert len(html) < 5_000_000


def test_what_was_measured_is_printed(tmp_path, inputs):
    html = written(tmp_path, inputs)
    assert ">reached</td>" in html
    assert "measured +2.50 dB as estimated" in html
    missed = written(tmp_path, inputs, recipes=recipes(at_least=3.0))
    assert ">NOT reached</td>" in missed
    assert "expectations reached: 0 of 1" in missed


def test_residuals_before_and_after(tmp_path, inputs):
    html = written(tmp_path, inputs)
    numbers = "<td>0.04000</td><td>0.00990</td><td>0.03000</td><td>0.00700</td><td>0.01000</td>"
    assert f"{numbers}<td>yes</td>" in html
    numbers = "<td>0.04000</td><td>0.02000</td><td>0.03000</td><td>0.00700</td><td>0.01000</td>"
    assert f"{numbers}<td>NO: the scans contradict each other; published as estimated</td>" in html
    assert "published as estimated, for their scans contradict each other: inr axial_x4 x" in html
    assert "1 of 2 after the projection, 0 before it" in html
    assert len(read_residuals(inputs["checks"])) == 2


def test_text_is_escaped(tmp_path, inputs):
    record(tmp_path / "records/fit/a.json", '<script src="http://x"></script>', "href=http://y")
    html = written(tmp_path, inputs)
    assert "<script" not in html
    assert "No warnings" not in html
    assert "headsr &lt;demo&gt;" in html
    assert "above &lt;the&gt; spline" in html


def test_what_jobs_warned_of_is_listed_once_and_no_more_than_a_page_of_it(tmp_path, monkeypatch):
    for job, said in {"fit/b": ["steep"], "fit/a": ["steep", "flat <1>"], "mask/a": []}.items():
        record(tmp_path / f"{job}.json", *said)
    assert report.warnings_of(tmp_path) == ["steep (fit/a; jobs: 2)", "flat <1> (fit/a; jobs: 1)"]
    monkeypatch.setattr(report, "_WARNINGS", 1)
    assert report.warnings_of(tmp_path) == ["steep (fit/a; jobs: 2)", "and 1 more, in the logs"]
    assert report.warnings_of(tmp_path / "nothing") == []


def test_seeds_versions_and_methods(tmp_path, inputs):
    html = written(tmp_path, inputs)
    for what, seed in (("degradation axial_x4", 11), ("model ldm", 12), ("model kl_f4", 14), ("fit inr", 13)):
        assert f'<td class="words">{what}</td><td>{seed}</td>' in html
    assert re.search(r'<td class="words">torch</td><td>\d', html)
    assert "INR with prior (inr): an implicit neural representation" in html
    assert "the frozen latent diffusion model ldm as a prior of weight 0.1" in html
    assert "Model ldm: ldm, network unet2d, trained on T1w" in html


def test_published_values_stand_beside_ours(tmp_path, inputs):
    theirs = tmp_path / "theirs.csv"
    theirs.write_text(
        "method,degradation,metric,mask,value,source\nspline,axial_x4,psnr,head,30,\ninr,axial_x4,psnr,,34,x\n"
    )
    html = written(tmp_path, inputs, published={"thick": theirs})
    assert "<td>+2.50 dB</td><td>+4.00 dB</td><td>-1.50 dB</td><td>x</td>" in html
    assert "Beside the published values" not in written(tmp_path, inputs)


def test_a_table_that_compares_sets_of_slices_has_its_first_column_in_the_summary_too(tmp_path, inputs):
    columns = ["psnr", {"metric": "kid", "mask": "axial"}]
    html = written(tmp_path, inputs, recipes=recipes(columns=columns, encoder="slice_encoder"))
    summary, scores = html.split('<h2 id="heads">')
    assert "<th>PSNR (dB) head, as estimated</th>" in summary and "KID" not in summary
    assert "<th>KID axial, as estimated</th>" in scores


def test_nothing_at_all_is_a_report_too(tmp_path, inputs):
    html = written(tmp_path, inputs, checks={}, figures={}, masks={}, curves=None, rulegraph=None)
    assert "No picture was made." in html
    assert "Nothing was trained." in html


def test_pictures_that_do_not_fit_are_named(tmp_path, inputs):
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    figures = {"first": tmp_path / "large.png", "second": tmp_path / "large.png", "small": tmp_path / "a.png"}
    html = written(tmp_path, inputs, figures=figures)
    assert "Left out, so that this file stays small: second." in html
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def test_masks_have_their_own_heading_and_leave_room_for_the_heads(tmp_path, inputs):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mask.png")
    html = written(tmp_path, inputs, masks={f"demo/sub-{n}_T1w": tmp_path / "mask.png" for n in range(1000)})
    before, masks = html.split('<h2 id="masks">')
    masks, _ = masks.split('<h2 id="residuals">')
    assert 'alt="Masks of demo/sub-0_T1w"' in masks and "Left out, so that this file stays small:" in masks
    assert 5 < masks.count("<img") < 10 and "demo/sub-999_T1w" in masks
    assert 'alt="demo/sub-06_T1w, axial_x4"' in before


def test_too_large_is_refused_and_nothing_is_left(tmp_path, inputs):
    with pytest.raises(ValueError, match="bytes"):
        written(tmp_path, inputs, commit="x" * 5_000_000)
    assert not (tmp_path / "report.html").exists()


def test_volumes_are_linked_where_they_are_named_and_where_they_are_shown(tmp_path, inputs):
    (tmp_path / "report").mkdir()
    write_report(tmp_path / "report/report.html", **inputs)
    html = (tmp_path / "report/report.html").read_text()
    link = '<a href="../deriv%20%C3%A9/sub-06.nii.gz">'
    assert f"{link}spline</a></p>" in html
    assert f'<td class="words">{link}spline axial_x4 demo/sub-06_T1w</a></td>' in html


def test_where_no_truth_is_known_words_stand_for_a_table_of_nothing(tmp_path, inputs):
    html = written(tmp_path, inputs, recipes=recipes(degradations=["acquired"], expectations=[]))
    summary, scores = html.split('<h2 id="scores">')
    said = "Not scored: acquired. The truth of a scan is not known where nothing was simulated from it."
    assert said in summary and said in scores
    assert "<td>-</td>" not in html and "PSNR" not in html


def test_of_two_degradations_that_with_a_truth_has_its_table(tmp_path, inputs):
    html = written(tmp_path, inputs, recipes=recipes(degradations=["acquired", "axial_x4"]))
    assert "Not scored: acquired." in html and "<caption>axial_x4</caption>" in html
    assert "<td>-</td>" not in html and "<caption>acquired" not in html


def test_scores_stand_scan_by_scan_as_many_as_there_is_room_for(tmp_path, inputs, monkeypatch):
    html = written(tmp_path, inputs)
    _, shown = html.split("<summary>Scan by scan</summary>")
    assert "<caption>axial_x4: PSNR (dB) head, projected</caption>" in shown
    assert '<td class="words">demo/sub-06_T1w</td>\n<td>20.00</td>\n<td>22.50</td>' in shown.replace(
        "</td><td", "</td>\n<td"
    )
    monkeypatch.setattr(report, "_ROWS_BY_SCAN", 1)
    assert "2 rows of single scans. All scores are" in written(tmp_path, inputs)


def test_a_method_that_leaves_out_scans_says_so_where_there_are_several(tmp_path, inputs):
    assert "the first scan only" not in written(tmp_path, inputs)
    several = written(tmp_path, inputs, recipes=recipes(degradations=["axial_x4", "orthogonal_x4"]))
    assert '<td class="words">Cubic B-spline (the first scan only)</td>' in several


@pytest.mark.parametrize(
    "html",
    [
        '<img src="http://x/a.png">',
        "<img src='../a.png'>",
        "<a href='//x'>",
        "<a href='http://x'>",
        "<a href='javascript:x'>",
        "<script>1</script>",
        '<p style="a:url(x)">',
    ],
)
def test_what_loads_something_is_refused(html):
    with pytest.raises(ValueError, match="elsewhere"):
        report._refuse_unfit("report.html", html)


def test_the_same_bytes_each_time(tmp_path, inputs):
    assert written(tmp_path, inputs) == written(tmp_path, inputs)
