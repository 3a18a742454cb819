"""What a render is announced to take, and the grids that can be asked for."""

import numpy as np
import pytest
from known_fields import Waves

from headsr.render import plan
from headsr.render.plan import estimate, plan_volume, time_said
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
