import numpy as np
import pytest

from headsr.simulate.anatomy import SIGNAL, TISSUES, TissueMaps, _closed, _padded, _signed_distance
from headsr.volumes import Grid, Volume


def at(anatomy, point):
    index = np.rint(np.array(point) - anatomy.grid.affine[:3, 3]).astype(int)
    return dict(zip(TISSUES, anatomy.fractions[(slice(None), *index)], strict=True))


def test_fractions_are_fractions(anatomy):
    assert anatomy.fractions.shape == (len(TISSUES), *anatomy.grid.shape)
    assert anatomy.fractions.min() >= 0
    assert anatomy.fractions.sum(axis=0).max() <= 1 + 1e-5
    assert anatomy.fractions[:, 0].max() == 0, "there is air at the edge of the box"


@pytest.mark.parametrize(
    ("point", "tissue"),
    [((26, -25, 30), "white"), ((-26, -25, 30), "white"), ((12, 10, 10), "grey"), ((31, 62, -38), "vitreous")],
)
def test_places_known_from_atlases_hold_their_tissue(anatomy, point, tissue):
    assert at(anatomy, point)[tissue] > 0.7


def test_the_way_out_of_the_head_crosses_its_layers_in_order(anatomy):
    x, y = np.rint(-anatomy.grid.affine[:2, 3] + (20, -20)).astype(int)
    column = anatomy.fractions[:, x, y]
    names = [TISSUES[t] for t in column.argmax(axis=0)[column.max(axis=0) > 0.6]]
    order = [name for name, before in zip(names, ["", *names[:-1]], strict=True) if name != before]
    assert order[-6:] == ["csf", "bone", "marrow", "bone", "fat", "skin"]


def test_brain_is_an_adult_brain_inside_the_head(anatomy):
    assert 1.6e6 < anatomy.brain.sum() < 2.1e6  # mm3; the template's mask includes the CSF around the gyri
    assert anatomy.fractions.sum(axis=0)[anatomy.brain].min() > 0.9


def test_texture_is_detail_not_brightness(anatomy):
    inside = anatomy.texture[anatomy.brain]
    assert abs(inside.mean()) < 0.02
    assert 0.01 < inside.std() < 0.2
    assert np.all(anatomy.texture[:, :, -1] == 0)


def test_padding_keeps_places_and_continues_downwards():
    template = Volume(np.arange(24, dtype=np.float32).reshape(2, 3, 4), Grid((2, 3, 4), np.eye(4)))
    affine = np.eye(4)
    affine[:3, 3] = (-1, 0, -2)
    padded = _padded(template, Grid((4, 3, 6), affine))
    np.testing.assert_array_equal(padded[1:3, :, 2:], template.data)
    np.testing.assert_array_equal(padded[1:3, :, 0], template.data[:, :, 0])
    assert not padded[0].any()
    assert not padded[3].any()


def test_closing_fills_a_narrow_gap_and_keeps_a_flat_face():
    mask = np.zeros((20, 21, 22), dtype=bool)
    mask[4:9, 4:16, 4:16] = mask[10:15, 4:16, 4:16] = True
    closed = _closed(mask, 3.0, 1.0)
    assert closed[9, 10, 10]
    assert not closed[3].any()


def test_signed_distance_counts_from_the_face_between_voxels():
    mask = np.zeros((9, 5, 5), dtype=bool)
    mask[:4] = True
    np.testing.assert_allclose(_signed_distance(mask, 2.0)[2:6, 2, 2], [-3, -1, 1, 3])


@pytest.fixture
def pure():
    """One voxel of each tissue, and one of air."""
    fractions = np.zeros((len(TISSUES), len(TISSUES) + 1, 1, 1), dtype=np.float32)
    for tissue in range(len(TISSUES)):
        fractions[tissue, tissue] = 1
    grid = Grid(fractions.shape[1:], np.eye(4))
    return TissueMaps(grid, fractions, np.zeros(grid.shape, dtype=bool), np.zeros(grid.shape, dtype=np.float32))


def test_t1w_orders_white_grey_csf_and_t2w_the_other_way(pure):
    t1, t2 = (dict(zip(TISSUES, pure.signal(s).ravel(), strict=False)) for s in ("T1w", "T2w"))
    assert t1["white"] > t1["grey"] > t1["csf"] > t1["bone"]
    assert t2["csf"] > t2["grey"] > t2["white"] > t2["bone"]
    assert max(t1.values()) == t1["fat"]


def test_air_gives_no_signal_and_people_differ_a_little(pure):
    plain = pure.signal("T1w")
    person = pure.signal("T1w", rng=np.random.default_rng(3))
    assert plain[-1] == person[-1] == 0
    ratio = person[:-1] / plain[:-1]
    assert 0 < np.abs(ratio - 1).max() <= 0.0801
    np.testing.assert_allclose(plain.ravel()[:-1], [SIGNAL["T1w"][t] for t in TISSUES], rtol=1e-6)
