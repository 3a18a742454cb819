"""What a render refuses, so that no volume is lost and none is made of two."""

import dataclasses
import hashlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from known_fields import RECORD, Ball, Waves

from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.lattice import level_shape
from headsr.fields.load import FieldError, save_field
from headsr.lock import HeldError
from headsr.render import field as rendering
from headsr.render import source
from headsr.render import store as stores
from headsr.render.field import FieldFile, Manner, render, render_field
from headsr.render.plan import target_grid
from headsr.render.publish import Outputs
from headsr.render.store import StoreError, writing
from headsr.volumes import Grid, save_volume

SMALL = Manner(chunk=16, shard=32)
SHAPE = (70, 33, 81)  # level 1 is of two shards, each the mean of several


def outputs_in(folder):
    return Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")


def digest(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def rendered(folder, field=None, manner=SMALL, identity="waves", grid=None):
    outputs = outputs_in(folder)
    render(Waves(SHAPE) if field is None else field, outputs, identity=identity, manner=manner, grid=grid)
    return outputs


def saved_field(path, seed=0):
    rng, shape = np.random.default_rng(seed), (20, 18, 22)
    levels = tuple(rng.random((2, *level_shape(shape, cell)), dtype=np.float32) for cell in (4, 2))
    hidden = [rng.normal(size=size).astype(np.float32) for size in ((3, 4), (3,), (3,), ())]
    network = DenseField(Waves(shape).grid, (4, 2), levels, *hidden)
    field = ConsistentField.of(network, rng.random(shape, dtype=np.float32), scale=300.0, offset=0.0, signed=False)
    save_field(path, dataclasses.replace(field, record=RECORD))
    return path


class TestOneVolumeIsMadeByOne:
    def test_another_render_of_it_is_refused_and_harms_nothing(self, tmp_path):
        rendered(tmp_path)
        before = digest(tmp_path)
        with writing(outputs_in(tmp_path).store), pytest.raises(HeldError, match="being written by process"):
            rendered(tmp_path, identity="other waves")
        assert digest(tmp_path) == before

    def test_the_last_call_waits_until_all_parts_have_ended(self, tmp_path):
        with writing(outputs_in(tmp_path).store, shared=True):
            rendered(tmp_path, manner=dataclasses.replace(SMALL, part=(1, 2)))
            with pytest.raises(HeldError, match="being written"):
                rendered(tmp_path)
        rendered(tmp_path)

    def test_what_a_lost_driver_left_at_work_writes_into_no_other_volume(self, tmp_path, monkeypatch):
        """A worker of SLURM may outlive who sent it its task, which by then is another volume's."""
        tasks = []
        monkeypatch.setattr(rendering, "run_tasks", lambda work, tasks_, **_: tasks.append((work, tasks_[0].key)))
        with pytest.raises(StoreError):  # no task was done
            rendered(tmp_path)
        monkeypatch.undo()
        rendered(tmp_path, identity="other waves")
        before = digest(tmp_path)
        with pytest.raises(StoreError, match=r"is no longer what this render began"):
            tasks[0][0](tasks[0][1])
        assert digest(tmp_path) == before


class TestALostShard:
    def test_is_never_averaged_as_fill_and_the_same_call_makes_it_anew(self, tmp_path, monkeypatch):
        rendered(tmp_path / "whole")
        monkeypatch.setattr(stores, "_PATIENCE", 0.0)
        record = stores.record_shard

        def record_and_lose(store, key, written):
            note = record(store, key, written)
            if key == "0/c/0/0/0":
                (store.parent / key).unlink()
            return note

        monkeypatch.setattr(stores, "record_shard", record_and_lose)
        with pytest.raises(StoreError, match=r"0/c/0/0/0: was written and is gone\. Say the same again"):
            rendered(tmp_path / "lost")
        assert not outputs_in(tmp_path / "lost").store.exists()
        monkeypatch.setattr(stores, "record_shard", record)
        rendered(tmp_path / "lost")
        assert digest(tmp_path / "lost") == digest(tmp_path / "whole")

    @pytest.mark.parametrize("how", ["gone", "damaged"])
    def test_of_a_finished_volume_is_noticed(self, tmp_path, how):
        rendered(tmp_path)
        before = digest(tmp_path)
        shard = tmp_path / "a.ome.zarr" / "0/c/0/0/0"
        if how == "gone":
            shard.unlink()
        else:
            content = shard.read_bytes()
            shard.write_bytes(content[:40] + bytes([content[40] ^ 4]) + content[41:])
        rendered(tmp_path)
        assert digest(tmp_path) == before


class TestOneField:
    def test_a_file_that_changes_under_a_render_is_not_mixed_into_it(self, tmp_path):
        path = saved_field(tmp_path / "f.safetensors")
        first = FieldFile(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        first.open()
        saved_field(path, seed=1)
        source._opened.cache_clear()  # as a process that starts later
        with pytest.raises(FieldError, match="has changed since this render began"):
            first.open()

    def test_the_processes_are_told_which_content_it_is(self, tmp_path, monkeypatch):
        path, works = saved_field(tmp_path / "f.safetensors"), []
        monkeypatch.setattr(rendering, "run_tasks", lambda work, *_, **__: works.append(work))
        with pytest.raises(StoreError):
            render_field(path, outputs_in(tmp_path), manner=SMALL)
        assert works[0].source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_a_node_that_computes_otherwise_is_refused(self, tmp_path, monkeypatch):
        works = []
        monkeypatch.setattr(rendering, "run_tasks", lambda work, tasks, **_: works.append((work, tasks[0].key)))
        with pytest.raises(StoreError):
            rendered(tmp_path)
        work, key = works[0]
        work.source.arithmetic = "AVX-9000"  # as the field that another node opens
        with pytest.raises(ValueError, match=r"computes with AVX-9000 and this render with numpy.*--constraint"):
            work(key)


class TestWhatWasThere:
    class NoDevice(Waves):
        def evaluate(self, grid):
            raise ValueError("device cuda: this machine has none")

    @pytest.mark.parametrize("manner", [SMALL, dataclasses.replace(SMALL, skip_air=True, dtype="uint16")])
    def test_stays_where_the_field_cannot_be_evaluated(self, tmp_path, manner):
        rendered(tmp_path)
        before = digest(tmp_path)
        with pytest.raises(ValueError, match="this machine has none"):
            rendered(tmp_path, self.NoDevice(SHAPE), manner, identity="new")
        assert digest(tmp_path) == before

    def test_beside_the_store_goes_with_it(self, tmp_path):
        """A preview of the old volume must not lie beside the new one's sidecar, nor beside a store half done."""
        outputs = rendered(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            rendered(tmp_path, Waves(SHAPE, fail_at=3), identity="new")
        assert not outputs.preview.exists() and not outputs.sidecar.exists()


class TestAFileOfAPerson:
    """Of the same name as a volume's, it is the person's own scan and its sidecar."""

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.json"])
    @pytest.mark.parametrize("content", ["{}", "[]", '{"headsr": 1, "Manufacturer": "x"}', "", "text"])
    def test_is_neither_overwritten_nor_deleted(self, tmp_path, name, content):
        own = tmp_path / name
        own.write_text(content)
        with pytest.raises(StoreError, match=rf"{name}: is in the way: headsr did not write it.*Choose another name"):
            rendered(tmp_path)
        assert own.read_text() == content and [path.name for path in tmp_path.iterdir()] == [name]

    def test_is_no_preview_because_it_is_a_scan(self, tmp_path):
        own = tmp_path / "a.nii.gz"
        save_volume(own, np.random.default_rng(0).random((4, 5, 6), dtype=np.float32), Grid((4, 5, 6), np.eye(4)))
        before = digest(tmp_path)
        with pytest.raises(StoreError, match=r"a\.nii\.gz: is in the way"):
            rendered(tmp_path)
        assert digest(tmp_path) == before

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.json"])
    def test_is_not_written_through_a_link(self, tmp_path, name):
        rendered(tmp_path / "made")
        (tmp_path / "made" / name).rename(tmp_path / "own")
        (tmp_path / "made" / name).symlink_to(tmp_path / "own")
        before = digest(tmp_path)
        with pytest.raises(StoreError, match=rf"{name}: is in the way"):
            rendered(tmp_path / "made", identity="new")
        assert digest(tmp_path) == before

    def test_that_comes_in_while_a_volume_is_rendered_stays(self, tmp_path, monkeypatch):
        agreement = rendering.agreement_of

        def late(*arguments, **more):
            (tmp_path / "a.json").write_text("my own")
            return agreement(*arguments, **more)

        monkeypatch.setattr(rendering, "agreement_of", late)
        with pytest.raises(StoreError, match=r"a\.json: is in the way"):
            rendered(tmp_path)
        assert (tmp_path / "a.json").read_text() == "my own"
        monkeypatch.undo()
        (tmp_path / "a.json").unlink()
        rendered(tmp_path)

    def test_stays_where_a_finished_volume_lacks_its_preview(self, tmp_path):
        outputs = rendered(tmp_path)
        outputs.preview.unlink()
        outputs.sidecar.write_text("my own")
        with pytest.raises(StoreError, match=r"a\.json: is in the way"):
            rendered(tmp_path)
        assert outputs.sidecar.read_text() == "my own" and not outputs.preview.exists()

    def test_is_told_from_what_headsr_published(self, tmp_path):
        rendered(tmp_path)
        before = digest(tmp_path)
        rendered(tmp_path, identity="new")
        after = digest(tmp_path)
        assert {name for name in before if before[name] != after[name]} == {"a.ome.zarr/zarr.json"}


class TestABoxWithinTheHead:
    def test_is_rendered_whole_though_its_faces_are_all_alike(self, tmp_path):
        """A brain of one value with a ventricle in it: on the faces of a box within it is brain, and that is no air."""

        class Brain(Waves):
            def at(self, x, y, z):
                inside = (x - 17) ** 2 + (y - 25) ** 2 + (z - 35) ** 2 < 15**2
                ventricle = (x - 17) ** 2 + (y - 25) ** 2 + (z - 35) ** 2 < 2**2
                return np.where(ventricle, 0.97, np.where(inside, 1.0, 0.0))

        brain = Brain((70, 70, 70))
        origin = brain.grid.affine[:3, 3]
        box = [*(origin + np.array((9, 17, 27))), *(origin + np.array((25, 33, 43)))]
        grid = target_grid(brain.grid, scale=[2], box_mm=box)
        outputs = rendered(tmp_path, brain, Manner(chunk=8, shard=16, skip_air=True), grid=grid)
        exact = brain.evaluate(grid) * np.float32(100) + np.float32(5)
        np.testing.assert_array_equal(stores.read_level(outputs.store), exact)

    def test_and_of_the_whole_head_the_air_is_skipped_at_any_size_of_voxel(self, tmp_path):
        ball = Ball((70, 70, 70))
        for name, size in {"scale": [1.3], "voxel_mm": [0.37]}.items():
            outputs = rendered(
                tmp_path / name,
                ball,
                dataclasses.replace(SMALL, skip_air=True),
                grid=target_grid(ball.grid, **{name: size}),
            )
            assert stores.read_record(outputs.store)["render"]["air"]["share"] > 0.05


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)])
def test_an_interrupt_ends_it_with_the_chunks_in_work(tmp_path, started, workers, number):
    """The first of the shards alone would take a minute."""
    field, out = saved_field(tmp_path / "f.safetensors"), tmp_path / "a.ome.zarr"
    command = [sys.executable, "-m", "headsr.cli", "render", str(field), str(out), "--shape", "1024", "--keep-air"]
    process = started([*command, "--workers", workers], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 60
    while not list(out.rglob("*.partial")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert not list(out.rglob("*.partial")) and stores.work_folder(out / "zarr.json").exists()
    assert not (tmp_path / ".a.ome.zarr.lock").exists()
