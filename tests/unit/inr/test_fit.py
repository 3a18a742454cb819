import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from headsr.acquisition.consistency import allowed, residuals
from headsr.acquisition.measurement import load_study
from headsr.fields.load import load_field
from headsr.inr.fit import FitError, fit_inr
from headsr.recipes import Fit, Method, RecipeError, plain
from headsr.reconstruct.interpolate import fused_average

ORTHOGONAL = ("axial", "coronal", "sagittal")


def recipe(**change) -> Method:
    fit = {"field": {"cells": [4, 2, 1], "features": [2, 2, 2], "hidden": 8}, "steps": 60, "learning_rate": 0.02}
    return Method(kind="inr", title="INR", fit=Fit(**{**fit, "smoothness": 1e-3, **change}))


def outputs_in(folder: Path) -> dict[str, Path]:
    names = {"field": "f.safetensors", "unprojected": "sub-01_res-hi_desc-unprojected_T1w.nii.gz", "history": "h.jsonl"}
    return {key: folder / name for key, name in names.items()}


def test_three_thick_scans_give_more_than_their_average_and_what_was_measured_stays(measure, psnr_of, tmp_path) -> None:
    lowres, outputs = measure(ORTHOGONAL), outputs_in(tmp_path / "out")
    fit_inr(lowres, method=recipe(), prior=None, **outputs)
    study, field = load_study(lowres), load_field(outputs["field"])
    volume = field.evaluate(study.head)
    assert psnr_of(volume) > psnr_of(fused_average(study)) + 2.5
    for scan, residual in zip(study.scans, residuals(torch.from_numpy(volume), study.scans), strict=True):
        assert float(residual.square().mean().sqrt()) <= allowed(scan)
    before = nib.load(outputs["unprojected"])
    assert before.shape == study.head.shape and np.allclose(before.affine, study.head.affine, atol=1e-4)
    assert psnr_of(before.get_fdata() / field.scale) > psnr_of(fused_average(study)) + 2.5
    sidecar = json.loads((tmp_path / "out/sub-01_res-hi_desc-unprojected_T1w.json").read_text())
    assert sidecar["headsr"]["projected"] is False
    assert field.record["method"] == plain(recipe()) and field.record["source_key"] == study.source_key
    assert [entry["view"] for entry in field.record["consistency"]] == list(ORTHOGONAL)
    lines = [json.loads(line) for line in outputs["history"].read_text().splitlines()]
    assert lines[-1]["step"] == 60 and lines[-1]["data"] < lines[0]["data"]


def test_one_thick_scan_is_no_worse_than_its_spline(measure, psnr_of, tmp_path) -> None:
    lowres, outputs = measure(["axial"]), outputs_in(tmp_path / "out")
    fit_inr(lowres, method=recipe(), prior=None, **outputs)
    study = load_study(lowres)
    assert psnr_of(load_field(outputs["field"]).evaluate(study.head)) > psnr_of(fused_average(study)) - 0.1


def test_the_same_fit_gives_the_same_bytes_and_another_seed_does_not(measure, tmp_path) -> None:
    lowres = measure(["axial", "coronal"])
    contents = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        outputs = outputs_in(tmp_path / folder)
        fit_inr(lowres, method=recipe(steps=5, seed=seed), prior=None, **outputs)
        contents.append([path.read_bytes() for path in outputs.values()])
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[2][0]


def test_a_field_can_start_from_nothing(measure, psnr_of, tmp_path) -> None:
    outputs = outputs_in(tmp_path / "out")
    method = recipe(field={"cells": [4, 2, 1], "features": [2, 2, 2], "hidden": 8, "start": "none"}, steps=120)
    lowres = measure(ORTHOGONAL)
    fit_inr(lowres, method=method, prior=None, **outputs)
    study = load_study(lowres)
    assert psnr_of(load_field(outputs["field"]).evaluate(study.head)) > psnr_of(fused_average(study)) + 1


def test_a_diverging_fit_says_so_and_leaves_nothing(measure, tmp_path) -> None:
    outputs = outputs_in(tmp_path / "out")
    with pytest.raises(FitError, match="learning_rate"):
        fit_inr(measure(["axial"]), method=recipe(learning_rate=1e30), prior=None, **outputs)
    assert not any(path.exists() for path in outputs.values())


def test_recipes_that_do_not_work_are_refused(measure, tmp_path) -> None:
    lowres, outputs = measure(["axial"]), outputs_in(tmp_path / "out")
    with pytest.raises(RecipeError, match="levels"):
        fit_inr(lowres, method=recipe(field={"levels": [2, 1]}), prior=None, **outputs)
    with pytest.raises(ValueError, match="prior"):
        fit_inr(lowres, method=recipe(), prior=tmp_path / "weights.safetensors", **outputs)
    with pytest.raises(ValueError, match="fit block"):
        fit_inr(lowres, method=Method(kind="inr", title="INR"), prior=None, **outputs)
