import numpy as np
import pytest
from scipy import io
from scipy.spatial.transform import Rotation

from headsr.preprocess.transform import read_affine, resample_through
from headsr.volumes import Grid, Volume


def write_itk(path, matrix, translation, centre, kind="AffineTransform_float_3_3"):
    parameters = np.concatenate([matrix.ravel(), translation])[:, None]
    io.savemat(path, {kind: parameters, "fixed": np.array(centre, dtype=float)[:, None]}, format="4")


def test_a_point_goes_where_itk_sends_it(tmp_path):
    matrix = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ np.diag([1.1, 0.9, 1.05])
    translation, centre = np.array([5.0, -7.0, 11.0]), np.array([3.0, 20.0, -8.0])
    write_itk(tmp_path / "x.mat", matrix, translation, centre)
    ras = np.array([12.0, -30.0, 45.0])
    lps = ras * (-1, -1, 1)
    expected = (matrix @ (lps - centre) + centre + translation) * (-1, -1, 1)
    np.testing.assert_allclose((read_affine(tmp_path / "x.mat") @ [*ras, 1])[:3], expected)


def test_a_shift_to_the_left_is_plus_x_for_itk_and_minus_x_here(tmp_path):
    write_itk(tmp_path / "x.mat", np.eye(3), [8.0, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(read_affine(tmp_path / "x.mat")[:3, 3], [-8, 0, 0])


def test_another_file_is_refused_by_name(tmp_path):
    (tmp_path / "x.mat").write_text("no transform")
    with pytest.raises(ValueError, match=r"x\.mat.*run again"):
        read_affine(tmp_path / "x.mat")
    io.savemat(tmp_path / "y.mat", {"AffineTransform_float_3_3": np.ones((6, 1)), "fixed": np.ones((3, 1))}, format="4")
    with pytest.raises(ValueError, match=r"y\.mat.*12"):
        read_affine(tmp_path / "y.mat")


def test_an_image_moves_with_its_points_between_different_grids():
    template = Grid((20, 22, 24), np.array([[2.0, 0, 0, -20], [0, 2, 0, -22], [0, 0, 2, -24], [0, 0, 0, 1]]))
    image = np.zeros(template.shape, dtype=np.float32)
    image[14, 6, 17] = 1  # at (8, -10, 10) mm
    shift = np.eye(4)
    shift[:3, 3] = (3, -1, 5)  # to (11, -11, 15) mm
    scan = Grid((41, 43, 45), np.array([[-1.0, 0, 0, 20], [0, 1, 0, -21], [0, 0, 1, -22], [0, 0, 0, 1]]))
    moved = resample_through(Volume(image, template), shift, scan)
    where = np.unravel_index(moved.argmax(), moved.shape)
    np.testing.assert_allclose((scan.affine @ [*where, 1])[:3], (11, -11, 15))
    assert moved.max() == pytest.approx(1)
