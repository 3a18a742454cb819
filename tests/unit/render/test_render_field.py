import dataclasses
import hashlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import render_part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_fields import RECORD, Ball, Waves

from headsr.cli import main
from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.lattice import level_shape
from headsr.fields.load import save_field
from headsr.files import read_json
from headsr.render import field as rendering
from headsr.render import store as stores
from headsr.render.air import no_air
from headsr.render.disk import DiskFullError
from headsr.render.field import Manner, render, render_field, render_unit
from headsr.render.plan import RenderPlanError, plan_volume, target_grid, time_said
from headsr.render.publish import Outputs, outputs_beside, publish_volume
from headsr.render.store import StoreError
from headsr.render.tiles import lay_out
from headsr.volumes import Grid, Storage, load_volume

SMALL = Manner(chunk=16, shard=32)


def outputs_in(folder):
    stem = "sub-01_res-hi_desc-sr_T1w"
    return Outputs(folder / f"{stem}.ome.zarr" / "zarr.json", folder / f"{stem}.nii.gz", folder / f"{stem}.json")


def digest(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def rendered(folder, field, manner=SMALL, identity="waves", grid=None):
    outputs = outputs_in(folder)
    render(field, outputs, identity=identity, manner=manner, grid=grid)
    return outputs


@pytest.mark.parametrize("shape", [(70, 33, 81), (2, 64, 65), (20, 21, 22)])
def test_rendered_by_tiles_is_evaluated_at_once(tmp_path, shape):
    waves = Waves(shape)
    outputs = rendered(tmp_path, waves)
    whole = waves.evaluate(waves.grid).astype(np.float32)
    np.testing.assert_array_equal(stores.read_level(outputs.store), whole * np.float32(100) + np.float32(5))
    assert load_volume(outputs.preview).grid.same_as(stores.read_grid(outputs.store))


def test_a_rendered_field_and_a_published_array_are_the_same_voxels_and_preview(tmp_path):
    waves = Waves((70, 33, 150))
    a, b = rendered(tmp_path / "a", waves, Manner()), outputs_in(tmp_path / "b")
    volume = waves.evaluate(waves.grid)
    publish_volume(volume, None, waves.grid, b, scale=100.0, offset=5.0, record=RECORD)
    assert a.preview.read_bytes() == b.preview.read_bytes()
    a, b = (digest(outputs.store.parent) for outputs in (a, b))
    assert {name for name in a if a[name] != b[name]} == {"zarr.json"}  # they say what they were made from


def shapes(longest, other):
    """Boxes of one long side: those of more than 64 voxels have a pyramid."""
    return st.tuples(longest, other, other).flatmap(st.permutations).map(tuple)


class TestTheSameBytes:
    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        shape=shapes(st.integers(1, 150), st.integers(1, 40)),
        chunk=st.integers(9, 40),
        shards=st.integers(1, 3),
        workers=st.integers(2, 8),
        dtype=st.sampled_from(["float32", "float16", "uint16"]),
        skip_air=st.booleans(),
    )
    def test_for_any_number_of_threads(self, tmp_path_factory, shape, chunk, shards, workers, dtype, skip_air):
        folder, field = tmp_path_factory.mktemp("any"), Ball(shape)
        manner = Manner(chunk=chunk, shard=chunk * shards, dtype=dtype, skip_air=skip_air)
        rendered(folder / "1", field, manner)
        rendered(folder / "n", field, dataclasses.replace(manner, workers=workers))
        assert digest(folder / "1") == digest(folder / "n")

    def test_whatever_the_chunks_the_voxels_are_the_same(self, tmp_path):
        field = Ball((50, 31, 67))
        volumes = []
        for chunk in (13, 24, 90):
            outputs = rendered(tmp_path / str(chunk), field, Manner(chunk=chunk, shard=3 * chunk))
            volumes.append([stores.read_level(outputs.store, level) for level in range(2)])
        for other in volumes[1:]:
            for level in range(2):
                np.testing.assert_array_equal(volumes[0][level], other[level])

    @settings(max_examples=2, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        shape=shapes(st.integers(65, 150), st.integers(9, 40)),
        chunk=st.integers(9, 15),
        shards=st.integers(1, 2),
        workers=st.sampled_from([8, 3, 2]),
        dtype=st.sampled_from(["uint16", "float16", "float32"]),
    )
    def test_for_any_number_of_processes(self, tmp_path_factory, shape, chunk, shards, workers, dtype):
        folder, field = tmp_path_factory.mktemp("any"), Ball(shape)
        manner = Manner(chunk=chunk, shard=chunk * shards, dtype=dtype, skip_air=True)
        rendered(folder / "1", field, manner)
        rendered(folder / "n", field, dataclasses.replace(manner, workers=workers, scheduler="local"))
        assert digest(folder / "1") == digest(folder / "n")

    def test_for_processes_of_which_a_third_is_killed(self, tmp_path):
        field = Mortal((17, 16, 65), str(tmp_path))
        rendered(tmp_path / "threads", field, SMALL)
        (tmp_path / "deadly").touch()
        rendered(tmp_path / "local", field, dataclasses.replace(SMALL, workers=2, scheduler="local"))
        assert len(list(tmp_path.glob("killed-*"))) >= 3
        assert digest(tmp_path / "threads") == digest(tmp_path / "local")

    def test_for_parts_that_run_at_once_and_a_last_call(self, tmp_path, capfd):
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        render_part.rendered(whole)
        commands = [[sys.executable, render_part.__file__, parts, str(index), "3"] for index in (3, 1, 2)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for command in commands]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for process in processes:
            print(file=process.stdin, flush=True)
        for process in processes:
            process.communicate(timeout=60)
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert not (parts / "ball.ome.zarr" / "zarr.json").exists()
        last = render_part.rendered(parts)
        assert last.calls == 0 and "comparing" in capfd.readouterr().out
        assert digest(whole) == digest(parts)


class Mortal(Waves):
    """While a file ``deadly`` lies in its folder, every third block kills the process that evaluates it, once."""

    def __init__(self, shape, folder):
        super().__init__(shape)
        self.folder = folder

    def evaluate(self, grid):
        block = "-".join(f"{mm:g}" for mm in grid.affine[:3, 3])
        mark = os.path.join(self.folder, f"killed-{block}")
        doomed = hashlib.sha256(block.encode()).digest()[0] % 3 == 0
        if doomed and os.path.exists(os.path.join(self.folder, "deadly")) and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(grid)


class TestAKilledRender:
    @pytest.mark.parametrize("fail_at", [1, 20, 45])
    def test_goes_on_and_ends_in_the_same_bytes(self, tmp_path, fail_at):
        shape = (64, 64, 65)
        rendered(tmp_path / "whole", Waves(shape))
        with pytest.raises(KeyboardInterrupt):
            rendered(tmp_path / "cut", Waves(shape, fail_at=fail_at))
        assert not outputs_in(tmp_path / "cut").store.exists()
        again = Waves(shape)
        rendered(tmp_path / "cut", again)
        assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
        # Shards hold eight blocks; those that were whole are not evaluated again.
        assert again.calls == 80 - (fail_at - 1) // 8 * 8

    def test_never_mixes_in_shards_of_another_field(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            rendered(tmp_path, Waves((64, 64, 64), fail_at=30), identity="old")
        new = Waves((64, 64, 64))
        rendered(tmp_path, new, identity="new")
        assert new.calls == 64

    def test_makes_a_damaged_shard_again(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            rendered(tmp_path, Waves((64, 64, 64), fail_at=30))
        shard = outputs_in(tmp_path).store.parent / "0/c/0/0/0"
        content = bytearray(shard.read_bytes())
        content[100] ^= 1
        shard.write_bytes(content)
        again = Waves((64, 64, 64))
        rendered(tmp_path, again)
        assert again.calls == 64 - 2 * 8


def test_a_finished_volume_is_left_as_it_is(tmp_path, capsys):
    rendered(tmp_path, Waves((40, 40, 40)))
    before = digest(tmp_path)
    again = Waves((40, 40, 40))
    rendered(tmp_path, again)
    assert again.calls == 0 and digest(tmp_path) == before
    assert capsys.readouterr().out.endswith(": is finished\n")


def test_of_a_finished_volume_what_lies_beside_it_is_made_again(tmp_path):
    outputs = rendered(tmp_path, Waves((40, 40, 40)), dataclasses.replace(SMALL, skip_air=True))
    before = digest(tmp_path)
    for path in (outputs.preview, outputs.sidecar):
        path.unlink()
        again = Waves((40, 40, 40))
        rendered(tmp_path, again, dataclasses.replace(SMALL, skip_air=True))
        assert again.calls == 0 and digest(tmp_path) == before


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root = outputs_in(tmp_path).store.parent
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        rendered(tmp_path, Waves((40, 40, 40)))


@pytest.mark.parametrize("wrong", [{"part": (0, 4)}, {"part": (5, 4)}, {"chunk": 0}, {"shard": 8}, {"scheduler": "at"}])
def test_a_manner_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(SMALL, **wrong)


def test_what_cannot_fit_on_the_disk_is_refused_before_a_shard_is_rendered(tmp_path, monkeypatch):
    class Noise(Waves):
        def at(self, x, y, z):
            shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
            return np.random.default_rng(0).random(shape, dtype=np.float32)

    noise, usage = Noise((128, 128, 128)), shutil.disk_usage(tmp_path)
    manner = dataclasses.replace(SMALL, memory_bytes=2**32)  # the process of the tests is part of it
    with monkeypatch.context() as change:
        change.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
        with pytest.raises(DiskFullError, match=r"about 0\.006\d* GB and 0\.002 GB are free"):
            rendered(tmp_path, noise, manner)
    assert noise.calls == 8
    rendered(tmp_path, noise, manner)
    assert noise.calls == 8 + 512


def test_a_part_refuses_the_place_of_another_volume(tmp_path):
    rendered(tmp_path, Waves((40, 40, 40)), identity="old")
    with pytest.raises(StoreError, match="another volume"):
        rendered(tmp_path, Waves((40, 40, 40)), dataclasses.replace(SMALL, part=(1, 2)), identity="new")
    assert outputs_in(tmp_path).store.exists()


class TestWhatIsStored:
    def test_uint16_is_within_half_a_step_and_the_step_is_recorded(self, tmp_path):
        field = Ball((40, 40, 70))
        outputs = rendered(tmp_path, field, dataclasses.replace(SMALL, dtype="uint16"))
        exact = field.evaluate(field.grid) * np.float32(100) + np.float32(5)
        storage = stores.read_storage(outputs.store)
        assert read_json(outputs.sidecar)["headsr"]["render"]["storage"] == dataclasses.asdict(storage)
        assert storage.slope <= 1.01 * 2.6 * (exact.max() - exact.min()) / 65535
        assert np.abs(stores.read_level(outputs.store) - exact).max() <= 0.501 * storage.slope
        preview = load_volume(outputs.preview)
        np.testing.assert_array_equal(preview.data, stores.read_level(outputs.store))
        assert preview.storage == storage

    def test_float16_is_within_a_2048th(self, tmp_path):
        field = Ball((40, 40, 70))
        outputs = rendered(tmp_path, field, dataclasses.replace(SMALL, dtype="float16"))
        exact = field.evaluate(field.grid) * np.float32(100) + np.float32(5)
        assert (np.abs(stores.read_level(outputs.store) - exact) <= np.abs(exact) / 2048).all()

    @pytest.mark.parametrize(("dtype", "scale"), [("float16", 1e5), ("uint16", 1.0)])
    def test_intensities_beyond_it_are_refused_by_place(self, tmp_path, dtype, scale):
        class Spike(Waves):
            def at(self, x, y, z):
                return np.where((x < 0.1) & (z < 0.1), 1e4, y + 0 * x * z)

            projected = np.linspace(0, 15, 260 * 20 * 20, dtype=np.float32).reshape(260, 20, 20)

        spike = Spike((260, 20, 20))
        spike.scale = scale
        with pytest.raises(FloatingPointError, match=r"level 0, voxels.*Render as float32"):
            rendered(tmp_path, spike, Manner(dtype=dtype))
        assert not outputs_in(tmp_path).store.exists()

    def test_a_volume_of_one_value_fits_uint16(self, tmp_path):
        class Constant(Waves):
            def at(self, x, y, z):
                return np.ones(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)

        outputs = rendered(tmp_path, Constant((20, 20, 20)), dataclasses.replace(SMALL, dtype="uint16"))
        half = 0.5 * stores.read_storage(outputs.store).slope + np.spacing(np.float32(105))
        assert np.abs(stores.read_level(outputs.store) - 105).max() <= half < 1e-4

    def test_another_type_is_refused(self):
        with pytest.raises(ValueError, match="float32, float16 or uint16"):
            Manner(dtype="int8")

    def test_not_finite_is_refused(self, tmp_path):
        waves = Waves((20, 20, 20))
        waves.scale = np.nan
        with pytest.raises(FloatingPointError):
            rendered(tmp_path, waves)
        assert not outputs_in(tmp_path).store.exists()


class TestThePlan:
    def test_each_shard_is_made_after_those_it_is_made_of_and_soon_after(self):
        volume = plan_volume(Grid((4096, 4096, 4096), np.eye(4)), Storage("uint16"))
        seen, waiting, most = set(), set(), 0
        for task in volume.tasks:
            assert seen.issuperset(task.needs) and task.key not in seen
            seen.add(task.key)
            waiting -= set(task.needs)
            waiting.add(task.key)
            most = max(most, len(waiting))
        assert len(seen) == 588 and most <= 8 * len(volume.grids)

    @settings(max_examples=40)
    @given(shape=st.tuples(*[st.integers(1, 140)] * 3), chunk=st.integers(20, 40), shards=st.integers(1, 3))
    def test_a_task_needs_every_shard_that_its_own_is_the_mean_of(self, shape, chunk, shards):
        volume = plan_volume(Grid(shape, np.eye(4)), Storage(), chunk=chunk, shard=chunk * shards)
        needs = {task.key: task.needs for task in volume.tasks}
        for key, (level, tile) in volume.tiles.items():
            if level == 0:
                continue
            finer = volume.layouts[level - 1]
            box = [(2 * a, min(2 * b, n)) for a, b, n in zip(tile.start, tile.stop, finer.shape, strict=True)]
            for other in finer.tiles:
                apart = any(a >= d or b <= c for a, b, (c, d) in zip(other.start, other.stop, box, strict=True))
                assert apart != (finer.key(level - 1, other) in needs[key])

    def test_too_little_memory_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(RenderPlanError, match=r"needs .* GB of memory.*0\.06 GB are allowed"):
            rendered(tmp_path, Waves((300, 300, 300)), Manner(memory_bytes=2**26))
        assert list(tmp_path.iterdir()) == []

    def test_it_says_what_it_will_do_first_and_how_far_it_is(self, tmp_path, capsys):
        rendered(tmp_path, Waves((64, 64, 65)))
        out = capsys.readouterr().out
        assert "64 x 64 x 65 voxels of 0.5 x 0.75 x 1 mm, float32, 2 levels" in out
        assert "at most 22 files" in out and "GB of memory" in out
        assert re.search(r"100% of 2\.662e\+05 voxels, .* voxels/s, 0 s left\n", out)
        assert out.endswith(": comparing its means with the head's voxels\n")

    def test_files_are_no_more_than_it_said(self, tmp_path, capsys):
        rendered(tmp_path, Waves((64, 64, 65)))
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) <= 22

    @pytest.mark.parametrize(
        ("seconds", "said"), [(3.2, "3 s"), (600, "10 min"), (12000, "3 h 20 min"), (770400, "8 d 22 h")]
    )
    def test_time_is_said_as_people_say_it(self, seconds, said):
        assert time_said(seconds) == said


class TestTheGrid:
    head = Grid((20, 30, 40), np.array([[0, -1.5, 0, 20], [1, 0, 0, -15], [0, 0, 2, -40], [0, 0, 0, 1.0]]))

    @pytest.mark.parametrize(
        ("how", "shape"),
        [
            ({}, (20, 30, 40)),
            ({"shape": [64]}, (64, 64, 64)),
            ({"shape": [10, 20, 30]}, (10, 20, 30)),
            ({"voxel_mm": [0.5]}, (40, 90, 160)),
            ({"scale": [2, 1, 1]}, (40, 30, 40)),
        ],
    )
    def test_has_the_same_box(self, how, shape):
        grid = target_grid(self.head, **how)
        assert grid.shape == shape
        np.testing.assert_allclose(grid.corners, self.head.corners, atol=1e-9)

    def test_of_a_box_is_the_voxels_that_touch_it(self):
        whole = target_grid(self.head, scale=[2])
        part = target_grid(self.head, scale=[2], box_mm=[-5, -10, -20, 5, 3.2, 0])
        index = np.linalg.solve(whole.affine, part.affine)[:3, 3]
        np.testing.assert_allclose(index, np.round(index), atol=1e-9)
        low, high = part.corners.min(0), part.corners.max(0)
        size = np.abs(whole.affine[:3, :3]).sum(1)
        assert (low <= [-5, -10, -20]).all() and (low > np.array([-5, -10, -20]) - size).all()
        assert (high >= [5, 3.2, 0]).all() and (high < np.array([5, 3.2, 0]) + size).all()

    @pytest.mark.parametrize("how", [{"shape": [4, 5]}, {"voxel_mm": [0]}, {"scale": [math.nan]}, {"shape": [40000]}])
    def test_that_cannot_be_is_refused(self, how):
        with pytest.raises(RenderPlanError):
            target_grid(self.head, **how)

    @pytest.mark.parametrize("box", [[500, 0, 0, 510, 5, 5], [0, 0, 0, 0, 5, 5], [5, 0, 0, 0, 5, 5]])
    def test_of_a_box_without_voxels_is_refused_with_the_head_s(self, box):
        with pytest.raises(RenderPlanError, match="within"):
            target_grid(self.head, box_mm=box)

    def test_a_box_is_rendered_as_that_part_of_the_whole(self, tmp_path):
        field = fitted_field()
        grid = target_grid(field.grid, scale=[2], box_mm=[-6, 8, -3, -2, 12, 4])
        outputs = rendered(tmp_path, field, grid=grid)
        whole = field.evaluate(field.grid.scaled(2)) * np.float32(300)
        start = np.round(np.linalg.solve(field.grid.scaled(2).affine, grid.affine)[:3, 3]).astype(int)
        inside = tuple(slice(a, a + n) for a, n in zip(start, grid.shape, strict=True))
        np.testing.assert_array_equal(stores.read_level(outputs.store), whole[inside])


def fitted_field():
    rng, shape = np.random.default_rng(0), (20, 18, 22)
    levels = tuple(rng.random((2, *level_shape(shape, cell)), dtype=np.float32) for cell in (4, 2))
    hidden = [rng.normal(size=size).astype(np.float32) for size in ((3, 4), (3,), (3,), ())]
    network = DenseField(Waves(shape).grid, (4, 2), levels, *hidden)
    field = ConsistentField.of(network, rng.random(shape, dtype=np.float32), scale=300.0, offset=0.0, signed=False)
    return dataclasses.replace(field, record=RECORD)


class TestTheCommand:
    @pytest.fixture
    def field(self, tmp_path):
        save_field(tmp_path / "field.safetensors", fitted_field())
        return tmp_path / "field.safetensors"

    def test_renders_a_field_from_its_file(self, field, tmp_path):
        out = tmp_path / "finer.ome.zarr"
        assert main(["render", str(field), str(out), "--scale", "2", "--workers", "2", "--keep-air"]) == 0
        fitted = fitted_field()
        outputs = outputs_beside(out)
        expected = fitted.evaluate(fitted.grid.resized((40, 36, 44))) * np.float32(300)
        np.testing.assert_array_equal(stores.read_level(outputs.store), expected)
        assert read_json(outputs.sidecar)["headsr"]["source_key"] == RECORD["source_key"]
        assert load_volume(outputs.preview).data.shape == (40, 36, 44)

    def test_plans_4096_cubed_within_two_seconds_and_writes_nothing(self, field, tmp_path):
        command = [sys.executable, "-m", "headsr.cli", "render", str(field), str(tmp_path / "x.ome.zarr")]
        command += ["--shape", "4096", "--dtype", "uint16", "--dry-run"]
        seconds = []
        for _ in range(3):
            begun = time.monotonic()
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds.append(time.monotonic() - begun)
        files = int(re.search(r"at most (\d+) files", said)[1])
        assert files <= 1000 and "4096 x 4096 x 4096" in said and "157 GB before compression" in said
        assert not (tmp_path / "x.ome.zarr").exists()
        # What it takes alone on the machine: processor time, not what others take from it.
        times = subprocess.run(
            ["bash", "-c", 'TIMEFORMAT="%U %S"; time "$@" > /dev/null', "-", *command], capture_output=True, text=True
        )
        assert min([*seconds, sum(map(float, times.stderr.split()[-2:]))]) < 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["x.zarr"], "X.ome.zarr"),
            (["x.ome.zarr", "--mem-gb", "0.01"], "Allow more"),
            (["x.ome.zarr", "--part", "3/2"], "I/N"),
            (["x.ome.zarr", "--dtype", "int8"], "float32, float16 or uint16"),
            (["x.ome.zarr", "--device", "tpu"], "choose cpu, cuda or cuda:N"),
        ],
    )
    def test_says_what_is_wrong_with_the_order(self, field, tmp_path, monkeypatch, capsys, arguments, said):
        monkeypatch.chdir(tmp_path)
        assert main(["render", str(field), *arguments]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "x.ome.zarr").exists()

    def test_a_file_that_is_no_field_is_refused(self, tmp_path, capsys):
        (tmp_path / "no.safetensors").write_bytes(b"nothing")
        assert main(["render", str(tmp_path / "no.safetensors"), str(tmp_path / "x.ome.zarr")]) == 2
        assert "no.safetensors" in capsys.readouterr().err


def test_a_fitted_field_is_rendered_bit_for_bit_from_its_file(tmp_path):
    save_field(tmp_path / "field.safetensors", fitted_field())
    finer = fitted_field().grid.resized((40, 36, 44))
    outputs = outputs_in(tmp_path)
    render_field(tmp_path / "field.safetensors", outputs, shape=(40, 36, 44), manner=Manner(workers=2))
    np.testing.assert_array_equal(stores.read_level(outputs.store), fitted_field().evaluate(finer) * np.float32(300))


@pytest.mark.parametrize("larger", [{}, {"scale": [2], "dtype": "uint16"}])
def test_the_workflow_keeps_the_air_where_a_volume_is_compared_with_its_scans(tmp_path, monkeypatch, larger):
    save_field(tmp_path / "field.safetensors", fitted_field())
    manners = []
    monkeypatch.setattr(rendering, "find_air", lambda *_, **__: manners.append("looked for") or no_air(lay_out(SHAPE2)))
    outputs = outputs_in(tmp_path)
    how = {"scans": [], "chunk": 128, "shard": 512, "scheduler": "threads", "workers": 2, "memory_mb": 2000}
    render_unit(tmp_path / "field.safetensors", outputs, larger=larger, **how)
    assert manners == (["looked for"] if larger else [])
    assert stores.read_storage(outputs.store).dtype == larger.get("dtype", "float32")
    assert stores.read_grid(outputs.store).shape == (SHAPE2 if larger else (20, 18, 22))


SHAPE2 = (40, 36, 44)


def test_neither_publishing_nor_rendering_imports_torch_or_needs_dask_for_one_tile():
    code = "import sys, headsr.render.field; print({'torch', 'dask', 'distributed'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
