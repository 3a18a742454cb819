"""One volume's scores, from files to JSON, and their way into the table of all scores."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from headsr import parts
from headsr.evaluate.collect import COLUMNS, collect_scores, read_scores
from headsr.evaluate.metrics.seams import seam_ratio
from headsr.evaluate.score import _comparisons, score_volume
from headsr.files import read_json, sha256_of, write_json
from headsr.recipes import Stack
from headsr.volumes import Grid, Volume, save_volume

SCALE, OFFSET = 800.0, -30.0
SHAPE = (15, 18, 13)
MEASURES = {"nrmse": ["head"], "psnr": ["brain", "head"], "ssim": ["head"]}
STACKS = [Stack(view="axial", factor=4.0), Stack(view="coronal", factor=2.0)]


def unit(method="spline", **change):
    return {"method": method, "degradation": "axial_x4", "dataset": "demo", "scan": "sub-06", "suffix": "T1w"} | change


def value_of(score, variant, mask, metric):
    """The value of one row of a score file."""
    (row,) = [r for r in score["rows"] if (r["variant"], r["mask"], r["metric"]) == (variant, mask, metric)]
    return row["value"]


@pytest.fixture
def head(tmp_path):
    """A truth (normalised) with masks, and a volume 0.1 above it as estimated, 0.01 above it as published."""
    rng = np.random.default_rng(0)
    grid = Grid(SHAPE, np.diag([2.0, 1.5, 2.5, 1.0]))
    truth = rng.random(SHAPE, dtype=np.float32)
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("preview", "unprojected", "truth")}
    masks = {name: tmp_path / f"{name}_mask.nii.gz" for name in ("head", "brain")}
    save_volume(paths["truth"], truth, grid)
    write_json(
        tmp_path / "truth.json", {"headsr": {"scale": SCALE, "offset": OFFSET, "source_key": "SHA256E-s1--a.nii"}}
    )
    save_volume(paths["preview"], ((truth + 0.01) * SCALE + OFFSET).astype(np.float32), grid)
    save_volume(paths["unprojected"], ((truth + 0.1) * SCALE + OFFSET).astype(np.float32), grid)
    mask = np.zeros(SHAPE, dtype=np.float32)
    mask[2:-2, 2:-2, 2:-2] = 1
    save_volume(masks["head"], mask, grid)
    mask[:6] = 0
    save_volume(masks["brain"], mask, grid)
    return {**paths, "masks": masks, "measures": MEASURES, "stacks": STACKS}


def test_what_a_method_foretells_is_scored_in_units_of_the_truth(head, tmp_path):
    """Errors of 0.01 as published and 0.1 before, by intervals of 0.04 to 0.06 in scan units."""
    output, uncertainty, measures = tmp_path / "score.json", tmp_path / "foretold.nii.gz", {"coverage": ["head"]}
    grid = Grid(SHAPE, np.diag([2.0, 1.5, 2.5, 1.0]))
    halves = np.linspace(0.04, 0.06, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    save_volume(uncertainty, halves * np.float32(SCALE), grid)
    about = {"unit": unit(), "uncertainty": uncertainty}
    score_volume(head["preview"], head["unprojected"], head["truth"], output, **about, **told(head, measures))
    assert value_of(read_json(output), "projected", "head", "coverage") == 1.0
    assert value_of(read_json(output), "unprojected", "head", "coverage") == 0.0
    score_volume(head["preview"], head["unprojected"], head["truth"], output, unit=unit(), **told(head, measures))
    assert read_json(output)["rows"] == []


def told(head, measures):
    return {"masks": head["masks"], "stacks": head["stacks"], "measures": measures}


def test_both_variants_in_the_asked_masks(head, tmp_path):
    output = tmp_path / "score.json"
    weights = tmp_path / "models/edsr/weights.safetensors"
    weights.parent.mkdir(parents=True)
    save_file({"w": np.zeros(3, np.float32)}, weights, {"headsr": json.dumps({"training_keys": "abc", "stage": 1})})
    score_volume(**head, output=output, unit=unit("edsr"), profile="box", seed=3, weights=[weights])
    score = read_json(output)
    assert value_of(score, "unprojected", "head", "psnr") == pytest.approx(20.0, abs=0.01)
    assert value_of(score, "projected", "brain", "psnr") == pytest.approx(40.0, abs=0.05)
    assert sorted((row["metric"], row["mask"]) for row in score["rows"] if row["variant"] == "projected") == [
        (metric, mask) for metric, masks in MEASURES.items() for mask in masks
    ]
    assert score["unit"] == unit("edsr")
    assert score["mask"] == {"head": 11 * 14 * 9, "brain": 7 * 14 * 9}
    assert score["data_range"] == 1.0
    assert score["trained_on"] == [{"model": "edsr", "training_keys": "abc", "sha256": sha256_of(weights)}]
    assert (score["seed"], score["profile"], score["source_key"]) == (3, "box", "SHA256E-s1--a.nii")
    collect_scores([output], tmp_path / "scores.tsv")
    assert {row.trained_on for row in read_scores(tmp_path / "scores.tsv")} == {"edsr abc"}


def test_the_scans_and_the_volume_are_what_a_metric_sees(head, tmp_path, monkeypatch):
    seen = []

    def record(comparison):
        seen.append(comparison)
        return math.nan

    monkeypatch.setattr(parts.Metric, "load", lambda self: record)
    head["measures"] = {"psnr": ["brain", "head"]}
    score_volume(**head, output=tmp_path / "score.json", unit=unit())
    assert [int(comparison.mask.sum()) for comparison in seen] == [11 * 14 * 9, 7 * 14 * 9] * 2  # the widest first
    assert {(comparison.spacings, comparison.borders) for comparison in seen} == {((1.0, 2.0, 4.0), (1.0, 2.0, 4.0))}
    assert {comparison.data_range for comparison in seen} == {1.0}
    assert np.allclose(seen[0].voxel_mm, (2.0, 1.5, 2.5))
    assert seen[0].maps is seen[1].maps and seen[1].maps is not seen[2].maps
    assert read_json(tmp_path / "score.json")["rows"] == []  # what means nothing there is no score


@pytest.mark.parametrize(
    ("stack", "first"),
    [
        ({"factor": 4.0}, 4.0),
        ({"factor": 3.3}, 3.3),
        ({"factor": 4.0, "profile": "zoom"}, 0.5 + 39 / 18),
        ({"factor": 3.0, "thickness": 1.0}, 2.0),
    ],
)
def test_slices_have_their_seams_where_they_meet(stack, first):
    """Whether they begin at the volume's face or at its outermost centres, and with gaps."""
    stack = Stack(view="axial", **stack)
    grid = Grid((12, 12, 40), np.eye(4))
    scan = grid.zoomed(2, 4.0) if stack.profile == "zoom" else grid.thick(2, stack.factor, stack.thickness)
    values = np.random.default_rng(3).random((12, 12, scan.shape[2]))
    at = (np.arange(40) - scan.affine[2, 3]) / scan.affine[2, 2]
    near = values[:, :, np.clip(np.rint(at), 0, scan.shape[2] - 1).astype(int)].astype(np.float32)
    noise = np.random.default_rng(4).random(grid.shape, dtype=np.float32)
    seen = _comparisons(near, Volume(noise, grid), {"head": noise >= 0}, [stack])["head"]
    assert seen.borders[2] == pytest.approx(first)
    assert seam_ratio(seen) > 0.9 * scan.affine[2, 2], "nearest neighbours step at the borders alone"


def test_a_lesion_is_a_mask_like_any_other_and_an_empty_one_has_no_scores(head, tmp_path):
    lesion = np.zeros(SHAPE, dtype=np.uint8)
    head["masks"] = {**head["masks"], "lesion": tmp_path / "lesion.nii.gz"}
    head["measures"] = {"psnr": ["head", "lesion"]}
    for voxels in (0, 5):
        lesion[7, 8, 3 : 3 + voxels] = 1
        save_volume(head["masks"]["lesion"], lesion, Grid(SHAPE, np.diag([2.0, 1.5, 2.5, 1.0])))
        score_volume(**head, output=tmp_path / "score.json", unit=unit())
        score = read_json(tmp_path / "score.json")
        assert score["mask"]["lesion"] == voxels
        masks = {row["mask"] for row in score["rows"]}
        assert masks == ({"head", "lesion"} if voxels else {"head"})


def test_nothing_before_the_projection(head, tmp_path):
    head["unprojected"] = None
    score_volume(**head, output=tmp_path / "score.json", unit=unit("spline"))
    score = read_json(tmp_path / "score.json")
    assert score["trained_on"] == []
    collect_scores([tmp_path / "score.json"], tmp_path / "scores.tsv")
    assert {row.variant for row in read_scores(tmp_path / "scores.tsv")} == {"projected"}


@pytest.mark.parametrize("which", ["preview", "unprojected", "head"])
def test_another_grid_is_refused(head, tmp_path, which):
    shifted = np.diag([2.0, 1.5, 2.5, 1.0])
    shifted[0, 3] = 0.5
    path = (head | head["masks"])[which]
    save_volume(path, np.random.default_rng(1).random(SHAPE, dtype=np.float32), Grid(SHAPE, shifted))
    with pytest.raises(ValueError, match=f"{which}.*another grid"):
        score_volume(**head, output=tmp_path / "score.json", unit=unit("spline"))
    assert not (tmp_path / "score.json").exists()


def test_a_truth_without_scale_is_refused(head, tmp_path):
    write_json(tmp_path / "truth.json", {"headsr": {"scale": 0.0, "offset": 0.0}})
    with pytest.raises(ValueError, match=r"truth\.json.*scale"):
        score_volume(**head, output=tmp_path / "score.json", unit=unit("spline"))


def test_equal_volumes_survive_json(tmp_path, head):
    write_json(tmp_path / "truth.json", {"headsr": {"scale": 1.0, "offset": 0.0}})
    head["preview"] = head["unprojected"] = head["truth"]
    score_volume(**head, output=tmp_path / "score.json", unit=unit("spline"))
    assert value_of(read_json(tmp_path / "score.json"), "projected", "head", "psnr") == "inf"
    collect_scores([tmp_path / "score.json"], tmp_path / "scores.tsv")
    assert {row.value for row in read_scores(tmp_path / "scores.tsv") if row.metric == "psnr"} == {float("inf")}


def test_scoring_imports_no_torch():
    heavy = ("torch", "monai", "matplotlib")
    code = f"import sys, headsr.evaluate.score; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_does_not_depend_on_the_order(head, tmp_path):
    paths = []
    for method in ("spline", "inr", "average"):
        paths.append(tmp_path / f"{method}.json")
        score_volume(**head, output=paths[-1], unit=unit(method))
    collect_scores(paths, tmp_path / "a.tsv")
    collect_scores(reversed(paths), tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    rows = read_scores(tmp_path / "a.tsv")
    assert len(rows) == 3 * 2 * 4
    assert rows[0].name == "demo/sub-06_T1w"
    assert {(row.metric, row.mask) for row in rows} == {(metric, m) for metric, ms in MEASURES.items() for m in ms}
    assert (tmp_path / "a.tsv").read_text().splitlines()[0].split("\t") == list(COLUMNS)


def test_a_volume_scored_twice_is_refused(head, tmp_path):
    score_volume(**head, output=tmp_path / "a.json", unit=unit("spline"))
    with pytest.raises(ValueError, match="twice"):
        collect_scores([tmp_path / "a.json", tmp_path / "a.json"], tmp_path / "scores.tsv")


def test_another_family_adds_rows_and_repeats_none(head, tmp_path):
    score_volume(**head, output=tmp_path / "a.json", unit=unit())
    rows = [{"variant": "projected", "mask": "head", "metric": "kid", "value": 0.5}]
    write_json(tmp_path / "b.json", read_json(tmp_path / "a.json") | {"rows": rows})
    collect_scores([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "scores.tsv")
    assert len(read_scores(tmp_path / "scores.tsv")) == 2 * 4 + 1


def test_two_data_ranges_are_refused(head, tmp_path):
    score_volume(**head, output=tmp_path / "a.json", unit=unit("spline"))
    other = read_json(tmp_path / "a.json") | {"unit": unit("inr"), "data_range": 255.0}
    write_json(tmp_path / "b.json", other)
    with pytest.raises(ValueError, match="data ranges"):
        collect_scores([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "scores.tsv")


def test_something_else_is_not_a_score(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"unit": unit()}))
    with pytest.raises(ValueError, match=r"a\.json: its content: the key 'rows' is missing"):
        collect_scores([tmp_path / "a.json"], tmp_path / "scores.tsv")
