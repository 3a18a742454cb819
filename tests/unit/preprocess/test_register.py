import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from headsr.files import sha256_of
from headsr.preprocess.mask import mask_head
from headsr.preprocess.register import register_to_template
from headsr.preprocess.transform import read_affine
from headsr.volumes import load_volume, save_volume


@pytest.fixture(scope="module")
def registered(tmp_path_factory, make_head):
    """A head moved by a known affine, imaged with thick slices, registered twice to the head that did not move."""
    folder = tmp_path_factory.mktemp("register")
    to_scan = np.eye(4)
    to_scan[:3, :3] = Rotation.from_euler("xyz", [6, -5, 8], degrees=True).as_matrix() @ np.diag([1.04, 0.97, 1.0])
    to_scan[:3, 3] = (7, -4, 5)
    template = make_head((4.0, 4.0, 4.0), noise=0)
    scan = make_head((4.0, 4.0, 6.0), to_scan=to_scan, origin=(-100.0, -120.0, -108.0), box=(208.0, 240.0, 216.0))
    save_volume(folder / "template.nii.gz", template.data, template.grid)
    save_volume(folder / "brain.nii.gz", (template.data > 0).astype(np.uint8), template.grid)
    save_volume(folder / "scan.nii.gz", 300 * scan.data, scan.grid)
    for name in ("one", "two"):
        register_to_template(folder / "scan.nii.gz", folder / "template.nii.gz", folder / f"{name}.mat")
    return folder, to_scan


def test_a_known_movement_is_found(registered):
    folder, to_scan = registered
    found = read_affine(folder / "one.mat")
    points = np.array([(x, y, z, 1) for x in (-50, 50) for y in (-60, 60) for z in (-50, 50)], dtype=float)
    error = np.linalg.norm((points @ (found - to_scan).T)[:, :3], axis=1)
    assert error.mean() < 3.0, f"{error.mean():.2f} mm, where voxels are 4 x 4 x 6 mm"


def test_the_same_bytes_twice(registered):
    folder, _ = registered
    assert sha256_of(folder / "one.mat") == sha256_of(folder / "two.mat")


def test_the_templates_mask_lands_on_the_head(registered):
    folder, _ = registered
    mask_head(
        folder / "scan.nii.gz",
        folder / "one.mat",
        folder / "brain.nii.gz",
        head_mask=folder / "head.nii.gz",
        brain_mask=folder / "found.nii.gz",
    )
    truth = load_volume(folder / "scan.nii.gz").data > 10
    found = load_volume(folder / "found.nii.gz").data > 0
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.96


def test_a_stripped_brain_is_registered_to_the_templates_brain(tmp_path, make_head, brain_alone):
    to_scan = np.eye(4)
    to_scan[:3, :3] = Rotation.from_euler("xyz", [6, -5, 8], degrees=True).as_matrix()
    to_scan[:3, 3] = (7, -4, 5)
    template = make_head((4.0, 4.0, 4.0), noise=0)
    brain = brain_alone(template)
    scan = brain_alone(make_head((4.0, 4.0, 4.0), to_scan=to_scan), to_scan)
    save_volume(tmp_path / "template.nii.gz", template.data, template.grid)
    save_volume(tmp_path / "brain.nii.gz", (brain.data > 0).astype(np.uint8), brain.grid)
    save_volume(tmp_path / "scan.nii.gz", 300 * scan.data, scan.grid)
    register_to_template(
        tmp_path / "scan.nii.gz",
        tmp_path / "template.nii.gz",
        tmp_path / "found.mat",
        template_brain=tmp_path / "brain.nii.gz",
    )
    found = read_affine(tmp_path / "found.mat")
    points = np.array([(x, y, z, 1) for x in (-50, 50) for y in (-60, 60) for z in (-50, 50)], dtype=float)
    error = np.linalg.norm((points @ (found - to_scan).T)[:, :3], axis=1)
    assert error.mean() < 3.0, f"{error.mean():.2f} mm, where voxels are 4 mm"
