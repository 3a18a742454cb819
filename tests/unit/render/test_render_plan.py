"""What a render is announced to take, and the grids that can be asked for."""

import math

import numpy as np
import pytest
from known_fields import Waves

from headsr.render import plan
from headsr.render.plan import PlanError, estimate, plan_volume, target_grid, time_said
from headsr.volumes import Grid, Storage

HEAD = Grid((40, 60, 80), np.diag([1.5, 1.0, 0.75, 1.0]))


def volume_of(shape, **layout):
    return plan_volume(Grid(shape, np.eye(4)), Storage(), **layout)


def expected(volume, workers, **changes):
    how = {"memory_bytes": None, "processes": False, "skips_air": False, **changes}
    return estimate(volume, Waves(volume.grids[0].shape), workers=workers, **how)


class TestTime:
    volume = volume_of((64, 64, 64), chunk=16, shard=32)

    @pytest.fixture(autouse=True)
    def two_cores(self, monkeypatch):
        monkeypatch.setattr(plan, "cores", lambda: 2)

    @pytest.mark.parametrize("processes", [False, True])
    def test_is_that_of_the_cores_however_many_work(self, processes):
        alone, pair, many = (expected(self.volume, n, processes=processes).seconds for n in (1, 2, 8))
        assert alone == pytest.approx(64**3 * 1e-8)
        assert many == pair == pytest.approx(alone / 2)

    def test_is_that_of_the_workers_where_each_has_a_core(self):
        jobs = expected(self.volume, 8, processes=True, own_cores=True)
        assert jobs.seconds == pytest.approx(64**3 * 1e-8 / 8)

    def test_is_that_of_the_processes_which_have_a_shard_to_write(self):
        one_shard = volume_of((64, 64, 64), chunk=16, shard=64)
        jobs = expected(one_shard, 8, processes=True, own_cores=True)
        assert (jobs.workers, jobs.seconds) == (1, pytest.approx(64**3 * 1e-8))
        assert expected(one_shard, 8).workers == 8

    @pytest.mark.parametrize(
        ("hours", "said"),
        [
            (47.9, "47 h 54 min"),
            (47.999, "2 d 0 h"),
            (48.4, "2 d 0 h"),
            (71.4, "2 d 23 h"),
            (71.6, "3 d 0 h"),
            (83, "3 d 11 h"),
        ],
    )
    def test_loses_no_day_in_rounding(self, hours, said):
        assert time_said(3600 * hours) == said


class TestTheGridAskedFor:
    box = (10, 10, 10, 11, 11, 11)

    def test_may_be_longer_than_nifti_holds_where_the_box_is_small(self):
        grid = target_grid(HEAD, shape=[33000], box_mm=self.box)
        assert max(grid.shape) <= 1000
        np.testing.assert_allclose(grid.voxel_size, HEAD.voxel_size * HEAD.shape / 33000)
        assert (grid.corners.min(0) <= 10).all() and (grid.corners.max(0) >= 11).all()

    def test_is_refused_where_the_box_is_longer_than_nifti_holds(self):
        with pytest.raises(PlanError, match=r"at most 32767 a side. Render a smaller box \(--roi\)"):
            target_grid(HEAD, shape=[40000], box_mm=(0, 0, 0, 60, 1, 1))

    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ({"shape": [0]}, "shape 0"),
            ({"shape": [10**23]}, "shape 1e\\+23"),
            ({"scale": [math.inf]}, "scale inf"),
            ({"scale": [1e300]}, "scale 1e\\+300"),
            ({"voxel_mm": [1e-300]}, "voxel 1e-300"),
            ({"voxel_mm": [math.nan]}, "voxel nan"),
        ],
    )
    @pytest.mark.filterwarnings("error")
    def test_of_numbers_beyond_all_sizes_is_refused_by_name(self, how, said):
        with pytest.raises(PlanError, match=f"{said}: give one positive number"):
            target_grid(HEAD, **how)

    @pytest.mark.parametrize("odd", [math.nan, -math.inf, 1e300])
    @pytest.mark.filterwarnings("error")
    def test_of_a_box_of_no_place_is_refused(self, odd):
        with pytest.raises(PlanError, match="holds no voxel"):
            target_grid(HEAD, box_mm=(odd, *self.box[1:]))
