"""One volume's scores, from files to JSON, and their way into the table of all scores."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from headsr.evaluate.collect import COLUMNS, collect_scores, read_scores, select
from headsr.evaluate.score import score_volume
from headsr.files import read_json, sha256_of, write_json
from headsr.volumes import Grid, save_volume

SCALE, OFFSET = 800.0, -30.0
SHAPE = (15, 18, 13)
NAMES = {"degradation": "axial_x4", "dataset": "demo", "scan": "sub-06", "suffix": "T1w"}


@pytest.fixture
def head(tmp_path):
    """A truth (normalised) with masks, and a volume 0.1 above it as estimated, 0.01 above it as published."""
    rng = np.random.default_rng(0)
    grid = Grid(SHAPE, np.diag([2.0, 1.5, 2.5, 1.0]))
    truth = rng.random(SHAPE, dtype=np.float32)
    paths = {
        name: tmp_path / f"{name}.nii.gz" for name in ("preview", "unprojected", "truth", "head_mask", "brain_mask")
    }
    save_volume(paths["truth"], truth, grid)
    write_json(
        tmp_path / "truth.json", {"headsr": {"scale": SCALE, "offset": OFFSET, "source_key": "SHA256E-s1--a.nii"}}
    )
    save_volume(paths["preview"], ((truth + 0.01) * SCALE + OFFSET).astype(np.float32), grid)
    save_volume(paths["unprojected"], ((truth + 0.1) * SCALE + OFFSET).astype(np.float32), grid)
    mask = np.zeros(SHAPE, dtype=np.float32)
    mask[2:-2, 2:-2, 2:-2] = 1
    save_volume(paths["head_mask"], mask, grid)
    mask[:6] = 0
    save_volume(paths["brain_mask"], mask, grid)
    return paths


def test_both_variants_in_both_masks(head, tmp_path):
    output = tmp_path / "score.json"
    weights = tmp_path / "models/edsr/weights.safetensors"
    weights.parent.mkdir(parents=True)
    save_file({"w": np.zeros(3, np.float32)}, weights, {"headsr": json.dumps({"training_keys": "abc", "stage": 1})})
    score_volume(**head, output=output, method="slice_network", **NAMES, profile="box", seed=3, weights=weights)
    score = read_json(output)
    assert score["scores"]["unprojected"]["head"]["psnr"] == pytest.approx(20.0, abs=0.01)
    assert score["scores"]["projected"]["brain"]["psnr"] == pytest.approx(40.0, abs=0.05)
    assert score["mask"] == {"head": 11 * 14 * 9, "brain": 7 * 14 * 9}
    assert score["data_range"] == 1.0
    assert score["trained_on"] == {"model": "edsr", "training_keys": "abc", "sha256": sha256_of(weights)}
    assert (score["seed"], score["profile"], score["source_key"]) == (3, "box", "SHA256E-s1--a.nii")
    assert {"psnr", "ssim", "nrmse"} == set(score["units"]) == set(score["scores"]["projected"]["head"])


def test_nothing_before_the_projection(head, tmp_path):
    head["unprojected"] = None
    score_volume(**head, output=tmp_path / "score.json", method="spline", **NAMES)
    score = read_json(tmp_path / "score.json")
    assert score["scores"]["unprojected"] is None
    assert score["trained_on"] is None
    collect_scores([tmp_path / "score.json"], tmp_path / "scores.tsv")
    assert {row.variant for row in read_scores(tmp_path / "scores.tsv")} == {"projected"}


@pytest.mark.parametrize("which", ["preview", "unprojected", "head_mask"])
def test_another_grid_is_refused(head, tmp_path, which):
    shifted = np.diag([2.0, 1.5, 2.5, 1.0])
    shifted[0, 3] = 0.5
    save_volume(head[which], np.random.default_rng(1).random(SHAPE, dtype=np.float32), Grid(SHAPE, shifted))
    with pytest.raises(ValueError, match=f"{which}.*another grid"):
        score_volume(**head, output=tmp_path / "score.json", method="spline", **NAMES)
    assert not (tmp_path / "score.json").exists()


def test_a_truth_without_scale_is_refused(head, tmp_path):
    write_json(tmp_path / "truth.json", {"headsr": {"scale": 0.0, "offset": 0.0}})
    with pytest.raises(ValueError, match=r"truth\.json.*scale"):
        score_volume(**head, output=tmp_path / "score.json", method="spline", **NAMES)


def test_equal_volumes_survive_json(tmp_path, head):
    write_json(tmp_path / "truth.json", {"headsr": {"scale": 1.0, "offset": 0.0}})
    head["preview"] = head["unprojected"] = head["truth"]
    score_volume(**head, output=tmp_path / "score.json", method="spline", **NAMES)
    assert read_json(tmp_path / "score.json")["scores"]["projected"]["head"]["psnr"] == "inf"
    collect_scores([tmp_path / "score.json"], tmp_path / "scores.tsv")
    assert read_scores(tmp_path / "scores.tsv")[0].psnr == float("inf")


def test_scoring_imports_no_torch():
    heavy = ("torch", "monai", "matplotlib")
    code = f"import sys, headsr.evaluate.score; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_does_not_depend_on_the_order(head, tmp_path):
    paths = []
    for method in ("spline", "inr", "average"):
        paths.append(tmp_path / f"{method}.json")
        score_volume(**head, output=paths[-1], method=method, **NAMES)
    collect_scores(paths, tmp_path / "a.tsv")
    collect_scores(reversed(paths), tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    rows = read_scores(tmp_path / "a.tsv")
    assert len(rows) == 3 * 2 * 2
    assert rows[0].name == "demo/sub-06_T1w"
    assert len(select(rows, method="inr", mask="head", suffix="")) == 2
    assert (tmp_path / "a.tsv").read_text().splitlines()[0].split("\t") == list(COLUMNS)


def test_a_volume_scored_twice_is_refused(head, tmp_path):
    score_volume(**head, output=tmp_path / "a.json", method="spline", **NAMES)
    with pytest.raises(ValueError, match="twice"):
        collect_scores([tmp_path / "a.json", tmp_path / "a.json"], tmp_path / "scores.tsv")


def test_two_data_ranges_are_refused(head, tmp_path):
    score_volume(**head, output=tmp_path / "a.json", method="spline", **NAMES)
    other = read_json(tmp_path / "a.json") | {"method": "inr", "data_range": 255.0}
    write_json(tmp_path / "b.json", other)
    with pytest.raises(ValueError, match="data ranges"):
        collect_scores([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "scores.tsv")


def test_something_else_is_not_a_score(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"method": "spline"}))
    with pytest.raises(ValueError, match=r"a\.json: is not a score"):
        collect_scores([tmp_path / "a.json"], tmp_path / "scores.tsv")
