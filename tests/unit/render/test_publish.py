import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image

from headsr.render import store as stores
from headsr.render.publish import Outputs, publish_volume
from headsr.volumes import Grid, load_volume

# Oblique: turned by 20 degrees about x and 10 about z.
AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.17, x=0.35) @ np.diag([0.9, 1.1, 1.3]), [-40, -50, 7])
SHAPE = (70, 33, 81)
RECORD = {
    "method": {"kind": "spline", "title": "Spline"},
    "degradation": "axial4",
    "source_key": "SHA256E-s1--0.nii.gz",
    "sources": ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii"],
}


def outputs_in(folder, unprojected=True, uncertainty=False):
    stem = "sub-01_ses-a_res-hi_desc"
    return Outputs(
        store=folder / f"{stem}-sr_T1w.ome.zarr" / "zarr.json",
        preview=str(folder / f"{stem}-sr_T1w.nii.gz"),
        sidecar=folder / f"{stem}-sr_T1w.json",
        unprojected=folder / f"{stem}-unprojected_T1w.nii.gz" if unprojected else None,
        uncertainty=folder / f"{stem}-uncertainty_T1w.nii.gz" if uncertainty else None,
    )


def head(shape=SHAPE):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def publish(outputs, data=None, **changes):
    data = head() if data is None else data
    before = None if outputs.unprojected is None else data + 1
    publish_volume(
        data, before, Grid(data.shape, AFFINE), outputs, **{"scale": 250.0, "offset": -3.0, "record": RECORD, **changes}
    )


def digest(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    outputs = outputs_in(tmp_path_factory.mktemp("anat"))
    publish(outputs)
    return outputs


def test_the_volume_is_the_same_in_zarr_and_nifti_in_scan_units(published):
    expected = head() * np.float32(250) + np.float32(-3)
    np.testing.assert_array_equal(stores.read_level(published.store), expected)
    preview = load_volume(published.preview)
    np.testing.assert_array_equal(preview.data, expected)
    assert preview.grid.same_as(Grid(SHAPE, AFFINE))
    assert stores.read_grid(published.store).same_as(preview.grid)
    np.testing.assert_allclose(load_volume(published.unprojected).data, expected + 250, rtol=1e-6)


def test_the_nifti_says_research_use_only(published):
    for path in (published.preview, published.unprojected):
        assert nib.load(path).header["descrip"].item() == b"headsr research use only"


def test_ome_zarr_models_accepts_the_store_and_keeps_its_axes(published):
    image = Image.from_zarr(zarr.open_group(published.store.parent, mode="r"))
    (multiscale,) = image.ome_attributes.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "millimeter") for name in "zyx"
    ]
    orientations = [axis.model_extra["orientation"]["value"] for axis in multiscale.axes]
    assert orientations == ["inferior-to-superior", "posterior-to-anterior", "left-to-right"]


def test_ome_zarr_reads_every_level_with_its_half_voxel_offset(published):
    (node, *_) = list(Reader(parse_url(published.store.parent))())
    assert [level.shape for level in node.data] == [(81, 33, 70), (41, 17, 35)]
    np.testing.assert_array_equal(np.asarray(node.data[0]).T, stores.read_level(published.store))
    fine, coarse = node.metadata["coordinateTransformations"]
    for axis in range(3):
        voxel = fine[0]["scale"][axis]
        assert coarse[0]["scale"][axis] == pytest.approx(2 * voxel)
        assert coarse[1]["translation"][axis] - fine[1]["translation"][axis] == pytest.approx(voxel / 2)


def test_the_nifti_header_in_the_store_is_one(published):
    raw = zarr.open_array(published.store.parent / "nifti", mode="r")
    assert (raw.dtype, raw.shape) == (np.uint8, (348,))
    header = nib.Nifti1Header(raw[:].tobytes())
    assert header.get_data_shape() == SHAPE and header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_sform(), AFFINE, atol=1e-4)
    np.testing.assert_allclose(header.get_zooms(), Grid(SHAPE, AFFINE).voxel_size, rtol=1e-5)


def test_the_sidecar_says_what_it_is(published):
    sidecar = json.loads(published.sidecar.read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii"]
    assert sidecar["SkullStripped"] is False and sidecar["Description"] and "70 x 33 x 81" in sidecar["Resolution"]
    about = sidecar["headsr"]
    assert about["SyntheticDetail"] is True and about["IntendedUse"] == "research"
    assert (about["affine"], about["shape"]) == (AFFINE.tolist(), list(SHAPE))
    assert (about["scale"], about["offset"], about["method"]) == (250.0, -3.0, RECORD["method"])
    before = json.loads(published.unprojected.with_name("sub-01_ses-a_res-hi_desc-unprojected_T1w.json").read_text())
    assert before["headsr"]["projected"] is False


def test_the_uncertainty_is_a_width_in_scan_units(tmp_path):
    outputs = outputs_in(tmp_path, uncertainty=True)
    publish(outputs, uncertainty=np.full(SHAPE, 0.25, np.float32))
    assert (load_volume(outputs.uncertainty, constant=True).data == 62.5).all()
    said = json.loads(outputs.uncertainty.with_name("sub-01_ses-a_res-hi_desc-uncertainty_T1w.json").read_text())
    assert "90 %" in said["Description"] and said["headsr"]["method"] == RECORD["method"]


def test_an_uncertainty_without_a_place_is_refused(tmp_path):
    with pytest.raises(ValueError, match="uncertainty volume and its path"):
        publish(outputs_in(tmp_path), uncertainty=head())


def test_the_same_volume_gives_the_same_bytes(published, tmp_path):
    publish(outputs_in(tmp_path))
    assert digest(tmp_path) == digest(published.preview.parent)
    publish(outputs_in(tmp_path))
    assert digest(tmp_path) == digest(published.preview.parent)


def test_a_smaller_volume_leaves_nothing_of_a_larger_one(tmp_path):
    outputs = outputs_in(tmp_path, unprojected=False)
    publish(outputs)
    publish(outputs, head((20, 20, 20)))
    files = sorted(
        str(path.relative_to(outputs.store.parent)) for path in outputs.store.parent.rglob("*.*") if path.is_file()
    )
    assert files == ["0/zarr.json", "nifti/zarr.json", "zarr.json"]
    assert stores.read_level(outputs.store).shape == (20, 20, 20)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path, value):
    data = head()
    data[1, 2, 3] = value
    with pytest.raises(FloatingPointError, match="1 of"):
        publish(outputs_in(tmp_path), data)
    assert list(tmp_path.iterdir()) == []


def test_another_shape_than_the_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        publish_volume(
            head(), None, Grid((5, 5, 5), AFFINE), outputs_in(tmp_path, False), scale=1.0, offset=0.0, record={}
        )


def test_the_unprojected_volume_and_its_path_come_together(tmp_path):
    with pytest.raises(ValueError, match="together"):
        publish_volume(head(), None, Grid(SHAPE, AFFINE), outputs_in(tmp_path), scale=1.0, offset=0.0, record={})


def test_the_preview_of_a_long_volume_is_its_first_small_level(tmp_path):
    outputs = outputs_in(tmp_path, unprojected=False)
    publish(outputs, head((600, 4, 5)))
    preview = load_volume(outputs.preview)
    assert preview.data.shape == (300, 2, 3)
    np.testing.assert_array_equal(preview.data, stores.read_level(outputs.store, 1))
    first = (stores.read_grid(outputs.store).affine @ [0.5, 0.5, 0.5, 1])[:3]
    np.testing.assert_allclose(preview.grid.affine[:3, 3], first, atol=1e-3)
    assert "300 x 2 x 3" in json.loads(outputs.sidecar.read_text())["Resolution"]


def test_of_the_files_beside_the_store_only_what_killed_writers_left_is_deleted(tmp_path):
    outputs = Outputs(tmp_path / "[a].ome.zarr/zarr.json", tmp_path / "[a].nii.gz", tmp_path / "[a].json")
    others = [tmp_path / name for name in (".my.[a].json", ".a.json", ".node.7.[a].nii.gz")]
    left = [tmp_path / f".node-1.cluster.7.partial.{path.name}" for path in (outputs.preview, outputs.sidecar)]
    for path in (*others, *left):
        path.touch()
    publish(outputs, head((20, 20, 20)))
    assert [path.exists() for path in (*others, *left)] == [True] * 3 + [False] * 2


def test_a_killed_write_leaves_no_root_metadata_and_the_next_one_is_whole(published, tmp_path):
    outputs = outputs_in(tmp_path)
    affine, paths = AFFINE.tolist(), [str(path) for path in dataclasses.astuple(outputs)]
    code = (
        "import numpy as np; from headsr.render.publish import *; print('go', flush=True)\n"
        f"data = np.random.default_rng(0).random({SHAPE}, dtype=np.float32)\n"
        f"while True: publish_volume(data, data + 1, Grid({SHAPE}, {affine}), Outputs(*{paths}), "
        f"scale=250.0, offset=-3.0, record={RECORD})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(np.random.default_rng().uniform(0.1, 0.8))
        process.send_signal(signal.SIGKILL)
    if outputs.store.exists():
        np.testing.assert_array_equal(stores.read_level(outputs.store), stores.read_level(published.store))
    publish(outputs)
    left = {name: value for name, value in digest(tmp_path).items() if not os.path.basename(name).startswith(".")}
    assert left == digest(published.preview.parent)
