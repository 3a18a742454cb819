"""What a render is announced to take, and the grids that can be asked for."""

import math

import numpy as np
import pytest
from known_fields import Waves

from headsr.render import plan
from headsr.render.plan import RenderPlanError, announce, estimate, plan_volume, target_grid, time_said
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
        assert alone == pytest.approx(64**3 * (1e-8 + plan._WRITING + plan._COMPARING))
        assert many == pair == pytest.approx(alone / 2)

    def test_is_that_of_the_workers_where_each_has_a_core(self):
        jobs = expected(self.volume, 8, processes=True, own_cores=True)
        # Who hands out the jobs compares the volume with the head, on two cores.
        assert jobs.seconds == pytest.approx(64**3 * ((1e-8 + plan._WRITING) / 8 + plan._COMPARING / 2))

    def test_is_that_of_the_processes_which_have_a_shard_to_write(self):
        one_shard = volume_of((64, 64, 64), chunk=16, shard=64)
        jobs = expected(one_shard, 8, processes=True, own_cores=True)
        assert (jobs.workers, jobs.seconds) == (1, pytest.approx(64**3 * (1e-8 + plan._WRITING + plan._COMPARING)))
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


class TestAnnounced:
    def said(self, volume, **how):
        return announce("x", volume, expected(volume, 1), **{"air": None, "head": volume.grids[0], "part": None, **how})

    def test_a_part_has_its_share_of_the_shards(self):
        volume = volume_of((64, 64, 96), chunk=16, shard=32)
        said = self.said(volume, part=(3, 5))
        assert said.startswith(self.said(volume))
        # Twelve shards: the third part has the 3rd and the 8th.
        assert "of this, part 3 of 5: 2 of the 12 shards of the finest level" in said
        assert f"at most {2 * 4 * 32**3 / 1e9:.3g} GB before compression" in said
        assert len(volume.tasks_of((3, 5))) == 2

    def test_the_parts_are_all_shards_of_the_finest_level_once(self):
        volume = volume_of((64, 64, 96), chunk=16, shard=32)
        keys = [task.key for index in range(1, 6) for task in volume.tasks_of((index, 5))]
        assert sorted(keys) == sorted(key for key, (level, _) in volume.tiles.items() if level == 0)
        assert volume.tasks_of(None) == volume.tasks

    def test_a_part_takes_its_share_of_the_time(self):
        volume = volume_of((64, 64, 96), chunk=16, shard=32)
        whole = plan.RenderCost(workers=1, memory_bytes=2**30, bytes=1, files=1, seconds=12 * 3600)
        said = announce("x", volume, whole, air=None, head=volume.grids[0], part=(3, 5))
        assert said.splitlines()[-1].endswith("about 2 h 0 min")

    def test_a_part_beyond_the_shards_has_none(self):
        assert "part 3 of 9: 0 of the 1 shards" in self.said(volume_of((20, 20, 20)), part=(3, 9))

    @pytest.mark.parametrize("how", [{"scale": [0.25]}, {"scale": [1, 1, 0.5]}, {"voxel_mm": [1.2]}, {"shape": [60]}])
    def test_coarser_than_the_head_along_an_axis_are_points_and_not_means(self, how):
        said = self.said(plan_volume(target_grid(HEAD, **how), Storage()), head=HEAD)
        assert "coarser than the head's own voxels: single points, not means" in said
        assert "read a level of the pyramid" in said

    @pytest.mark.parametrize("how", [{}, {"scale": [1]}, {"scale": [3]}, {"voxel_mm": [0.75]}, {"shape": [40, 60, 81]}])
    def test_as_fine_as_the_head_there_is_nothing_to_say(self, how):
        assert "coarser" not in self.said(plan_volume(target_grid(HEAD, **how), Storage()), head=HEAD)

    @pytest.mark.parametrize(
        ("how", "kept"),
        [({}, True), ({"scale": [3]}, True), ({"scale": [2, 1, 4]}, True), ({"scale": [1.5]}, False)],
    )
    def test_where_means_are_not_kept_the_way_to_know_is_said(self, how, kept):
        said = self.said(plan_volume(target_grid(HEAD, **how), Storage()), head=HEAD)
        assert ("With --scans the sidecar says how well the scans are met" in said) != kept


class TestTheGridAskedFor:
    box = (10, 10, 10, 11, 11, 11)

    def test_may_be_longer_than_nifti_holds_where_the_box_is_small(self):
        grid = target_grid(HEAD, shape=[33000], box_mm=self.box)
        assert max(grid.shape) <= 1000
        np.testing.assert_allclose(grid.voxel_size, HEAD.voxel_size * HEAD.shape / 33000)
        assert (grid.corners.min(0) <= 10).all() and (grid.corners.max(0) >= 11).all()

    def test_is_refused_where_the_box_is_longer_than_nifti_holds(self):
        with pytest.raises(RenderPlanError, match=r"at most 32767 a side. Render a smaller box \(--roi\)"):
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
        with pytest.raises(RenderPlanError, match=f"{said}: give one positive number"):
            target_grid(HEAD, **how)

    @pytest.mark.parametrize("odd", [math.nan, -math.inf, 1e300])
    @pytest.mark.filterwarnings("error")
    def test_of_a_box_of_no_place_is_refused(self, odd):
        with pytest.raises(RenderPlanError, match="holds no voxel"):
            target_grid(HEAD, box_mm=(odd, *self.box[1:]))
