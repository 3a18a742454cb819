"""How much air a scan has around its head changes nothing of the volume."""

import numpy as np
import pytest

from headsr.acquisition.measurement import load_study
from headsr.degrade.lowres import simulate_lowres
from headsr.files import read_json, write_json
from headsr.recipes import Degradation, Spline
from headsr.reconstruct.publish import reconstruct_volume
from headsr.render.publish import Outputs
from headsr.volumes import Grid, load_volume, save_volume

NOISE, SLICE_MM = 0.01, 6.0
SHAPE = (44, 48, 14)  # of the scan with little air


def scan_with_air(margin):
    """A thick scan (x, y, z), its grid and its head: a textured ball, with ``margin`` more pixels of air around it."""
    shape = (SHAPE[0] + 2 * margin, SHAPE[1] + 2 * margin, SHAPE[2])
    inner = (slice(margin, margin + SHAPE[0]), slice(margin, margin + SHAPE[1]))
    x, y, z = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    head, data = np.zeros(shape, bool), np.zeros(shape)
    head[inner] = x**2 + y**2 + z**2 < 1
    data[inner] = head[inner] * (0.6 + 0.2 * np.sin(9 * x + 4 * y) * np.cos(12 * z))
    real, imaginary = (np.random.default_rng(seed).normal(0, NOISE, shape) for seed in (0, 1))
    for part, seed in ((real, 2), (imaginary, 3)):  # the head's own noise is the same
        part[inner] = np.random.default_rng(seed).normal(0, NOISE, SHAPE)
    affine = np.diag([2.0, 2.0, SLICE_MM, 1.0])
    affine[:2, 3] = -2.0 * margin
    return np.hypot(data + real, imaginary).astype(np.float32), Grid(shape, affine), head


@pytest.fixture
def published(tmp_path):
    """margin -> the volume in the box with little air, its record and the study."""

    def publish(margin):
        folder = tmp_path / str(margin)
        data, grid, head = scan_with_air(margin)
        save_volume(folder / "scan_T1w.nii.gz", data, grid)
        save_volume(folder / "mask.nii.gz", head.astype(np.uint8), grid)
        write_json(folder / "scan_T1w.json", {"headsr": {"scale": 500.0, "offset": 0.0}})
        low = folder / "sub-01_desc-acquired_T1w.nii.gz"
        simulate_lowres(
            folder / "scan_T1w.nii.gz", low, view="acquired", degradation=Degradation("acquired"), name="a/sub-01_T1w",
            degradation_name="acquired", thickness=SLICE_MM, source_key="KEY", head_mask=folder / "mask.nii.gz",
        )  # fmt: skip
        stem = folder / "sub-01_res-hi_desc"
        endings = ("-sr_T1w.ome.zarr/zarr.json", "-sr_T1w.nii.gz", "-sr_T1w.json", "-unprojected_T1w.nii.gz")
        outputs = Outputs(*(f"{stem}{ending}" for ending in endings))
        reconstruct_volume([low], method=Spline(), weights={}, outputs=outputs)
        volume = load_volume(outputs.preview).data
        inner = volume[margin : margin + SHAPE[0], margin : margin + SHAPE[1]]
        return inner, read_json(outputs.sidecar)["headsr"]["consistency"], load_study([low])

    return publish


def test_the_same_head_in_much_air_is_the_same_volume(published):
    (near, said, study), (far, said_far, study_far) = published(2), published(30)
    assert study.scans[0].noise == pytest.approx(study_far.scans[0].noise, rel=0.1)
    assert said["outcome"] == said_far["outcome"] == "met"
    for key in ("rms_before", "rms_after"):
        assert said["views"][0][key] == pytest.approx(said_far["views"][0][key], rel=0.1)
    head = np.kron(scan_with_air(0)[2], np.ones((1, 1, 3))) > 0
    difference = (near - far)[head] / 500
    assert np.sqrt(np.mean(difference**2)) < 0.1 * NOISE
    # Over the field of view the residuals are others, and that is said too.
    assert said_far["views"][0]["rms_before_everywhere"] < 0.9 * said["views"][0]["rms_before_everywhere"]
