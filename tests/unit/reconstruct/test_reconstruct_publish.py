import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import zarr
from tiny_methods import METHODS

from headsr.acquisition.consistency import allowed, residuals
from headsr.acquisition.measurement import load_study
from headsr.evaluate.check import check_volume
from headsr.evaluate.figures import draw_figure
from headsr.fields.load import load_field
from headsr.files import read_json, sha256_of, sidecar_of
from headsr.recipes import Stack, model_references, plain
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.publish import reconstruct_field, reconstruct_volume
from headsr.render.field import render_unit
from headsr.render.publish import outputs_beside
from headsr.volumes import Forms, load_volume, save_volume

VOLUMES = {name: method for name, method in METHODS.items() if method.makes == "volume"}


def weights_of(method, weights):
    return {reference.name: weights[reference.name] for reference in model_references(method)}


def outputs_of(method, outputs):
    label = outputs.preview.with_name("sub-01_res-hi_desc-uncertainty_T1w.nii.gz")
    return dataclasses.replace(outputs, uncertainty=label if method.foretells else None)


@pytest.mark.parametrize("method", VOLUMES.values(), ids=VOLUMES)
def test_what_is_published_is_the_estimate_made_to_agree_with_every_scan(measure, models, weights, outputs, method):
    lowres = measure(["axial", "coronal"])
    reconstruct_volume(lowres, method=method, weights=weights_of(method, weights), outputs=outputs_of(method, outputs))
    study = load_study(lowres)
    before = nib.load(outputs.unprojected).get_fdata() / study.scale
    np.testing.assert_allclose(before, estimate_of(study, method, models).volume, atol=1e-5)
    record = json.loads(outputs.sidecar.read_text())["headsr"]
    assert [entry["view"] for entry in record["consistency"]["views"]] == record["views"] == ["axial", "coronal"]
    assert record["consistency"]["outcome"] in ("agreed", "met")
    assert all(entry["rms_after"] <= entry["allowed"] for entry in record["consistency"]["views"])
    assert record["method"] == plain(method) and record["source_key"] == study.source_key
    assert record["weights_sha256"] == {n: sha256_of(p) for n, p in weights_of(method, weights).items()}
    assert outputs.store.exists() and nib.load(outputs.preview).shape == study.head.shape


@pytest.mark.parametrize("factors", [(4, 4, 1), (2, 2, 3.3)])
@pytest.mark.parametrize("method", VOLUMES.values(), ids=VOLUMES)
def test_a_volume_from_coarse_slices_is_checked_and_drawn_like_any_other(
    simulate, tiny_head, weights, outputs, tmp_path, method, factors
):
    lowres = simulate(Stack("axial", factors=factors))
    reconstruct_volume(lowres, method=method, weights=weights_of(method, weights), outputs=outputs_of(method, outputs))
    check = outputs.sidecar.with_name("sub-01_desc-check_T1w.json")
    check_volume(outputs.store, outputs.preview, lowres, check, unprojected=outputs.unprojected)
    view = json.loads(check.read_text())["headsr"]["views"]["axial"]
    assert view["rms_after"] <= 1.01 * view["allowed"]
    save_volume(tmp_path / "mask.nii.gz", (tiny_head[0] > 0.1).astype(np.uint8), tiny_head[1])
    assert load_volume(check.with_name(view["map"])).grid.same_as(load_volume(lowres[0]).grid)
    draw_figure(
        tmp_path / "figure.png", lowres=lowres, volumes={"it": outputs.preview}, checks={"it": check}, truth=None,
        head_mask=tmp_path / "mask.nii.gz", brain_mask=tmp_path / "mask.nii.gz", suffix="T1w", title="sub-01",
    )  # fmt: skip
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_field_is_published_with_what_it_was_before_and_how_it_was_fitted(measure, tmp_path):
    lowres, stem = measure(["axial", "coronal"]), tmp_path / "out" / "sub-01"
    field, unprojected, history = (f"{stem}{end}" for end in (".safetensors", "_desc-unprojected_T1w.nii.gz", ".jsonl"))
    reconstruct_field(lowres, method=METHODS["inr"], weights={}, field=field, unprojected=unprojected, history=history)
    study, fitted = load_study(lowres), load_field(field)
    for scan, residual in zip(
        study.scans, residuals(torch.from_numpy(fitted.evaluate(study.head)), study.scans), strict=True
    ):
        assert scan.rms(residual) <= 1.01 * allowed(scan)
    estimate = estimate_of(study, METHODS["inr"], {})
    np.testing.assert_allclose(nib.load(unprojected).get_fdata() / study.scale, estimate.volume, atol=1e-5)
    sidecar = json.loads((tmp_path / "out" / "sub-01_desc-unprojected_T1w.json").read_text())["headsr"]
    assert sidecar["projected"] is False and sidecar["method"] == plain(METHODS["inr"])
    assert fitted.record["views"] == ["axial", "coronal"] and len(fitted.record["consistency"]["views"]) == 2
    assert [json.loads(line) for line in Path(history).read_text().splitlines()] == estimate.history


def codes(header):
    return int(header["sform_code"]), int(header["qform_code"])


def test_all_that_is_published_says_the_space_and_the_name_of_its_scan(simulate, weights, outputs):
    """Whatever follows from the scan: volumes, what they were before, uncertainty, residuals, fields and renders."""
    lowres = simulate(Stack("axial", factors=(1, 1, 4)), forms=Forms(4, 2))
    folder, method = outputs.sidecar.parent, METHODS["unrolled"]
    reconstruct_volume(lowres, method=method, weights=weights_of(method, weights), outputs=outputs_of(method, outputs))
    check = folder / "sub-01_desc-check_T1w.json"
    check_volume(outputs.store, outputs.preview, lowres, check, unprojected=outputs.unprojected)
    field, rendered = folder / "sub-01_desc-field_T1w.safetensors", outputs_beside(folder / "rendered.ome.zarr")
    beside = {"unprojected": folder / "field_T1w.nii.gz", "history": folder / "fit.jsonl"}
    reconstruct_field(lowres, method=METHODS["inr"], weights={}, field=field, **beside)
    render_unit(
        field, rendered, scans=[], larger={}, chunk=32, shard=64, scheduler="threads", workers=1, memory_mb=4000
    )
    images = sorted(folder.glob("*.nii.gz"))
    assert len(images) == 6
    for image in images:
        assert codes(nib.load(image).header) == (4, 2), image
        assert read_json(sidecar_of(image))["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii"], image
    for store in (outputs.store, rendered.store):
        assert codes(nib.Nifti1Header(zarr.open_array(store.parent / "nifti", mode="r")[:].tobytes())) == (4, 2)


def test_a_method_that_makes_no_field_is_refused_where_one_is_wanted(measure, tmp_path):
    paths = {name: tmp_path / "out" / name for name in ("field", "unprojected", "history")}
    with pytest.raises(TypeError, match="makes a field is needed"):
        reconstruct_field(measure(["axial"]), method=METHODS["spline"], weights={}, **paths)
    assert not (tmp_path / "out").exists()


def test_an_estimate_that_is_not_finite_is_refused_and_nothing_is_written(measure, outputs, monkeypatch):
    monkeypatch.setattr(
        "headsr.reconstruct.interpolate.spline_of", lambda scan, head: np.full(head.shape, np.nan, "f4")
    )
    with pytest.raises(FloatingPointError, match="NaN"):
        reconstruct_volume(measure(["axial"]), method=METHODS["spline"], weights={}, outputs=outputs)
    assert not outputs.store.parent.parent.exists()
