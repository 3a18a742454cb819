import json
import subprocess
import sys
from pathlib import Path

import pytest
from known_fields import Noise

from headsr.render.field import Manner, render
from headsr.render.plan import RenderPlanError
from headsr.render.publish import Outputs

PROGRAM = Path(__file__).with_name("render_noise.py")
GB = 2**30


def rendered(folder, shape, chunk, shard, workers, *allowed):
    """Render noise in a process of its own: how many worked, what was announced and what it took (bytes)."""
    command = [sys.executable, PROGRAM, folder, json.dumps(shape), *map(str, (chunk, shard, workers, *allowed))]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize(("gigabytes", "workers"), [(0.2, 1), (0.25, 2), (0.35, 4), (0.7, 8)])
def test_a_render_keeps_within_the_memory_that_it_is_allowed(tmp_path, gigabytes, workers):
    allowed = int(gigabytes * GB)
    took = rendered(tmp_path, (112, 112, 1008), 112, 448, 8, allowed)
    assert took["workers"] == workers
    assert took["announced"] <= allowed
    assert took["peak"] <= 1.1 * took["announced"]


def test_eight_times_as_many_voxels_take_no_more_memory(tmp_path):
    small, large = (rendered(tmp_path / str(n), (64 * n, 64 * n, 264 * n), 32, 64, 2) for n in (1, 2))
    assert large["peak"] <= 1.1 * small["peak"]


def test_the_planes_of_the_preview_are_within_the_memory_that_is_announced(tmp_path):
    """They are larger than small chunks."""
    took = rendered(tmp_path, (512, 512, 48), 64, 128, 2)
    assert took["peak"] <= 1.1 * took["announced"]


@pytest.mark.parametrize(("shape", "chunk"), [((300, 300, 300), 128), ((512, 512, 48), 32)])
def test_too_small_a_budget_is_refused_before_anything_is_written(tmp_path, shape, chunk):
    outputs = Outputs(tmp_path / "a.ome.zarr" / "zarr.json", tmp_path / "a.nii.gz", tmp_path / "a.json")
    with pytest.raises(RenderPlanError, match=r"needs \d+\.\d+ GB of memory: .* 0\.02 GB are allowed"):
        render(Noise(shape), outputs, identity="noise", manner=Manner(chunk=chunk, memory_bytes=GB // 50))
    assert list(tmp_path.iterdir()) == []
