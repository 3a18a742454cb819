"""What all families of fields have in common: files, values that no cut changes, threads, memory and time."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_fields import AFFINE, consistent, dense, hash_grid, head, siren
from safetensors.numpy import load_file, save_file

from headsr.fields.dense import _products
from headsr.fields.load import FieldError, load_field, save_field
from headsr.volumes import Grid

FAMILIES = {"dense": dense, "siren": siren, "hash_grid": hash_grid}
NETWORKS = {
    "siren": siren,
    "siren in bf16": lambda: siren((3, 16, 16, 1), precision="bf16"),
    "wide siren": lambda: siren((3, 256, 256, 1)),
    "hash_grid": hash_grid,
    "hash_grid in bf16": lambda: hash_grid(precision="bf16"),
}
FIELDS = {"dense": dense} | NETWORKS
made = cache(lambda name: FIELDS[name]())
triple = st.tuples(*[st.integers(1, 40)] * 3)


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=12, derandomize=True)
@given(shape=triple, cut=triple, data=st.data())
def test_a_box_anywhere_is_bit_for_bit_the_same_part_of_the_whole(name, shape, cut, data) -> None:
    field = made(name)
    grid = field.grid.resized(shape)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    size = tuple(min(c, n - s) for c, n, s in zip(cut, shape, start, strict=True))
    part = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    whole = field.evaluate(grid)
    assert whole.dtype == np.float32 and whole.flags.writeable and whole.flags.c_contiguous
    np.testing.assert_array_equal(field.evaluate(grid.block(start, size)), whole[part])


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_several_tiles_and_batches_are_bit_for_bit_the_whole(name) -> None:
    field = made(name)
    for grid in (field.grid.resized((70, 40, 150)), Grid((70, 40, 150), field.grid.resized((7, 5, 9)).affine)):
        whole, cut = field.evaluate(grid), np.empty(grid.shape, np.float32)
        for first in range(0, 70, 33):
            for last in range(0, 150, 101):
                size = (min(33, 70 - first), 40, min(101, 150 - last))
                block = field.evaluate(grid.block((first, 0, last), size))
                cut[first : first + 33, :, last : last + 101] = block
        np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_threads_that_evaluate_at_once_change_no_bit(name) -> None:
    field = replace(made(name))  # nothing has been moved to the device yet: that happens once, too
    grid = field.grid.resized((24, 30, 36))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: field.evaluate(grid), range(16)))
    alone = made(name).evaluate(grid)
    assert all(np.array_equal(result, alone) for result in results)


def test_evaluating_leaves_the_number_of_torch_threads_as_it_was() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made("siren").evaluate(head().resized((5, 5, 5)))
        assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="rotated"):
            made("siren").evaluate(Grid((4, 4, 4), head().affine[:, [1, 0, 2, 3]]))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 1), (9, 1, 1), (1, 1, 300), (2, 3, 1)])
def test_axes_of_one_voxel_are_evaluated(name, shape) -> None:
    field = made(name)
    grid = field.grid.resized((9, 17, 300)).block((0, 0, 0), shape)
    larger = field.evaluate(Grid(tuple(n + 1 for n in shape), grid.affine))
    np.testing.assert_array_equal(field.evaluate(grid), larger[:-1, :-1, :-1])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (7, 5, 9), (41, 29, 37)])
def test_the_network_of_dense_grids_is_the_sum_of_rounded_products_in_order(shape) -> None:
    field = made("dense")
    if field.arithmetic.endswith("fused"):
        pytest.skip("this NumPy fuses products into sums")
    grid = field.grid.resized(shape)
    channels = [feature(field, index, grid) for index in range(field.hidden_weight.shape[1])]
    total = np.full(shape, field.output_bias, np.float32)
    for bias, weights, out in zip(field.hidden_bias, field.hidden_weight, field.output_weight, strict=True):
        unit = np.full(shape, bias, np.float32)
        for weight, channel in zip(weights, channels, strict=True):
            unit += weight * channel
        total += out * np.maximum(unit, 0)
    np.testing.assert_array_equal(field.evaluate(grid), total)


def feature(field, index, grid):
    """One feature of a field of dense grids: two units let its positive and its negative part through."""
    weights = np.zeros((2, field.hidden_weight.shape[1]), np.float32)
    weights[:, index] = 1, -1
    through = replace(
        field,
        hidden_weight=weights,
        hidden_bias=np.zeros(2, np.float32),
        output_weight=np.float32([1, -1]),
        output_bias=np.float32(0)[...],
    )
    return through.evaluate(grid)


def test_fields_of_dense_grids_say_whether_products_are_rounded_or_fused(monkeypatch) -> None:
    monkeypatch.setattr("headsr.fields.dense._products", _products.__wrapped__)
    for how, precision in (("rounded", np.float32), ("fused", np.float64)):
        monkeypatch.setattr(np, "einsum", lambda _, a, b, p=precision: (p(a)[:, None] * b).sum(0).astype(np.float32))
        assert made("dense").arithmetic == f"cpu fp32 element-wise, products {how}"


@pytest.mark.parametrize("name", FAMILIES)
def test_beyond_the_outermost_voxel_centres_the_value_there_continues(name) -> None:
    field = made(name)
    beyond = field.evaluate(field.grid.block((-3, -2, -4), tuple(n + 8 for n in field.grid.shape)))
    inside = field.evaluate(field.grid)
    around = [(3, 5), (2, 6), (4, 4)]
    np.testing.assert_array_equal(beyond, np.pad(inside, around, mode="edge"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_grid_that_runs_backwards_has_the_same_values_backwards(name) -> None:
    field = made(name)
    grid = field.grid.resized((6, 7, 8))
    flipped = grid.affine.copy()
    flipped[:3, 3] += flipped[:3, 2] * 7
    flipped[:3, 2] *= -1
    np.testing.assert_array_equal(field.evaluate(Grid((6, 7, 8), flipped)), field.evaluate(grid)[:, :, ::-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rotated_grid_is_refused_by_each_family(name) -> None:
    with pytest.raises(ValueError, match="rotated"):
        made(name).evaluate(Grid((4, 4, 4), head().affine[:, [1, 0, 2, 3]]))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_saved_and_loaded_without_a_changed_bit(name, tmp_path) -> None:
    field = consistent(made(name))
    save_field(tmp_path / "a.safetensors", field)
    loaded = load_field(tmp_path / "a.safetensors")
    save_field(tmp_path / "b.safetensors", loaded)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (type(loaded.network), loaded.record, loaded.scale) == (type(field.network), field.record, field.scale)
    assert (loaded.offset, loaded.signed, loaded.arithmetic) == (field.offset, field.signed, field.arithmetic)
    grid = field.grid.resized((9, 10, 11))
    np.testing.assert_array_equal(loaded.evaluate(grid), field.evaluate(grid))


HIDDEN = {"dense": "hidden_weight", "siren": "weight_1", "hash_grid": "weight_1"}  # a tensor of each family


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "harm", ["cut short", "tensor missing", "wrong shape", "wrong type", "unknown kind", "no text"]
)
def test_a_harmed_or_foreign_file_is_named(name, harm, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_field(path, consistent(made(name)))
    tensors, content = load_file(path), json.loads(_text(path))
    del content["file_sha256"]  # a seal of its own would tell, whatever else is wrong
    if harm == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        if harm == "tensor missing":
            del tensors[HIDDEN[name]]
        elif harm == "wrong shape":
            tensors[HIDDEN[name]] = tensors[HIDDEN[name]][:, :-1].copy()
        elif harm == "wrong type":
            tensors[HIDDEN[name]] = tensors[HIDDEN[name]].astype(np.float64)
        elif harm == "unknown kind":
            content["kind"] = "wavelets"
        save_file(tensors, path, None if harm == "no text" else {"headsr": json.dumps(content)})
    with pytest.raises(FieldError, match=r"field\.safetensors: is damaged, or no field"):
        load_field(path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_flipped_bit_is_never_another_field(name, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_field(path, consistent(made(name)))
    whole, rng = path.read_bytes(), np.random.default_rng(7)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 7), *rng.integers(header, len(whole), 150).tolist()]:
        harmed = bytearray(whole)
        harmed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(harmed)
        with pytest.raises(FieldError, match=r"field\.safetensors: is damaged, or no field"):
            load_field(path)
    path.write_bytes(whole)
    load_field(path)


@pytest.mark.parametrize(
    "change",
    [
        {"record": []}, {"record": None}, {"record": "x"}, {"record": {"a": float("nan")}}, {"record": {"a": 10**400}},
        {"record": {"a": "\ud800"}}, {"scale": "1"}, {"scale": 0}, {"offset": None}, {"signed": 1}, {"shape": [1, 2]},
        {"shape": "abc"}, {"affine": [[1]]}, {"affine": [*AFFINE.tolist()[:3], [0, 0, 0, 0]]},
        {"kind": []}, {"cells": 3}, {"cells": ["4"]},
    ],
)  # fmt: skip
def test_what_a_field_says_is_checked_before_anything_is_rendered(change, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_field(path, consistent(made("dense")))
    tensors, content = load_file(path), json.loads(_text(path))
    del content["file_sha256"]
    save_file(tensors, path, {"headsr": json.dumps({**content, **change})})
    with pytest.raises(FieldError, match=r"field\.safetensors: is damaged, or no field"):
        load_field(path)


def test_a_field_from_before_there_were_seals_is_read(tmp_path) -> None:
    path, field = tmp_path / "field.safetensors", consistent(made("dense"))
    save_field(path, field)
    tensors, content = load_file(path), json.loads(_text(path))
    del content["file_sha256"]
    save_file(tensors, path, {"headsr": json.dumps(content, sort_keys=True)})
    np.testing.assert_array_equal(load_field(path).projected, field.projected)


def test_what_is_no_file_is_refused_at_once(endless) -> None:
    path = endless("field.safetensors")
    with pytest.raises(FieldError, match=r"field\.safetensors: is a pipe or a device"):
        load_field(path)


@pytest.mark.parametrize("text", ["[]", "5", "{}", '{"kind": ["siren"]}', "no json"])
def test_a_file_whose_text_is_no_field_is_named(text, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path, {"headsr": text})
    with pytest.raises(FieldError, match=r"field\.safetensors"):
        load_field(path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_an_earlier_version_is_named_with_the_way_out(name, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_field(path, consistent(made(name)))
    tensors, content = load_file(path), json.loads(_text(path))
    del tensors["projected"], content["signed"], content["file_sha256"]
    save_file(tensors, path, {"headsr": json.dumps(content)})
    with pytest.raises(FieldError, match=r"field\.safetensors: was fitted by a version of headsr .* Fit it again"):
        load_field(path)


def test_a_file_that_is_missing_is_named(tmp_path) -> None:
    with pytest.raises(FieldError, match=r"field\.safetensors: does not exist"):
        load_field(tmp_path / "field.safetensors")


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path) -> None:
    (tmp_path / "field.safetensors").mkdir()
    with pytest.raises(FieldError, match=r"field\.safetensors: cannot be read: Is a directory$"):
        load_field(tmp_path / "field.safetensors")


def test_hash_tables_of_a_wrong_size_are_refused() -> None:
    field = made("hash_grid")
    for wrong in (np.zeros((63, 2), np.float32), np.zeros((64, 3), np.float32), np.zeros((2, 3, 3, 3), np.float32)):
        with pytest.raises(ValueError, match="a level of cell"):
            replace(field, levels=(*field.levels[:-1], wrong))


def test_dense_levels_and_networks_of_a_wrong_size_are_refused() -> None:
    field = made("dense")
    for level in (field.levels[1][:, :-1], field.levels[1][:, :, :, 1:], field.levels[1][0]):
        with pytest.raises(ValueError, match=r"a level of cell 2 has \(6, 5, 7\) nodes"):
            replace(field, levels=(field.levels[0], level, field.levels[2]))
    with pytest.raises(ValueError, match="a network of 4 features"):
        replace(field, levels=(field.levels[0], field.levels[1], field.levels[2][:1]))
    for name in ("hidden_weight", "hidden_bias", "output_weight"):
        with pytest.raises(ValueError, match="a network of 5 features"):
            replace(field, **{name: getattr(field, name)[:-1]})
    for wrong in ({"cells": (4, 2)}, {"cells": (4, 2, 0)}, {"cells": (), "levels": ()}):
        with pytest.raises(ValueError):
            replace(field, **wrong)
    with pytest.raises(ValueError, match="float32"):
        replace(field, hidden_bias=field.hidden_bias.astype(np.float64))


@pytest.mark.parametrize(("device", "precision"), [("tpu", "fp32"), ("cuda:x", "fp32"), ("cpu", "fp8")])
def test_an_unknown_device_or_precision_is_refused(device, precision, tmp_path) -> None:
    save_field(tmp_path / "field.safetensors", consistent(made("siren")))
    with pytest.raises(ValueError, match="choose cpu, cuda or cuda:N"):
        load_field(tmp_path / "field.safetensors", device=device, precision=precision)


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda", 0, "device cuda: this machine has no CUDA device; use --device cpu"),
        ("cuda:7", 0, "device cuda:7: this machine has no CUDA device; use --device cpu"),
        ("cuda:2", 2, "device cuda:2: this machine has no CUDA device but cuda:0 to cuda:1; use --device cpu"),
    ],
)
@pytest.mark.parametrize("make", [siren, hash_grid])
def test_a_graphics_card_that_is_not_there_is_named_with_the_way_out(make, device, count, said, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    with pytest.raises(ValueError, match=said):
        make(device=device).evaluate(head())


def test_a_field_of_dense_grids_is_not_evaluated_on_a_graphics_card(tmp_path) -> None:
    save_field(tmp_path / "field.safetensors", consistent(made("dense")))
    with pytest.raises(ValueError, match="on the cpu in fp32 alone"):
        load_field(tmp_path / "field.safetensors", device="cuda")


def test_a_field_is_loaded_for_its_device_and_precision_and_says_so(tmp_path) -> None:
    save_field(tmp_path / "field.safetensors", consistent(made("siren")))
    names = set()
    for device, precision in [("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "fp16")]:
        loaded = load_field(tmp_path / "field.safetensors", device=device, precision=precision)
        assert loaded.arithmetic.startswith(f"{device} {precision} torch ")
        names.add(loaded.arithmetic)
    assert len(names) == 3


def test_a_plan_and_a_field_of_dense_grids_need_no_torch(tmp_path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in FAMILIES]
    for path in paths:
        save_field(path, consistent(made(path.stem)))
    code = """
import sys, time
from headsr.fields.load import load_field
for path in sys.argv[1:]:
    field = load_field(path)
    if path.endswith("dense.safetensors"):
        field.evaluate(field.grid.scaled(2))
    start = time.perf_counter()
    block = field.grid.scaled(32).block((0, 0, 0), (128, 128, 128))
    assert field.seconds_per_voxel(block) > 0 and field.evaluation_bytes(block) > 4 * 128**3 and field.arithmetic
    assert time.perf_counter() - start < 1, path
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, timeout=60)


_MEASURE = """
import ctypes, random_fields
import numpy as np
from headsr.fields.consistent import ConsistentField
from headsr.volumes import Grid

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

def filled(network):
    voxels = np.ones(network.grid.shape, np.float32)
    return ConsistentField(network, voxels, voxels, 1.0, 0.0)

head = (64, 64, 64)
dense = random_fields.dense((8, 4, 2, 1), (2, 2, 2, 2), hidden=16, shape=head)
large = random_fields.dense((8, 4, 2, 1), (2, 2, 2, 2), hidden=16, shape=(256, 256, 256))
siren = random_fields.siren((3, 64, 64, 1), shape=head)
hashed = random_fields.hash_grid(tuple(np.geomspace(8, 1, 8)), table=2**14, shape=head)
for field, size, shape in [
    (dense, 0.5, (128, 128, 128)),
    (dense, 3, (21, 21, 128)),
    (large, 4, (64, 64, 64)),  # of the head's nodes, those between which voxels lie and no others
    (large, 1.9, (128, 128, 128)),
    (siren, 0.5, (64, 64, 64)),
    (hashed, 0.5, (128, 64, 128)),
    (hashed, 1.5, (40, 40, 40)),
    (random_fields.consistent(dense), 1 / 2, (128, 128, 128)),
    (random_fields.consistent(dense), 1 / 3, (128, 128, 128)),
    (random_fields.consistent(dense), 1 / 15, (128, 128, 128)),
    (random_fields.consistent(dense), 0.7, (90, 64, 64)),
    (random_fields.consistent(hashed), 1 / 2, (64, 64, 64)),
    (filled(large), 4, (64, 64, 64)),
    (filled(large), 1, (128, 128, 128)),
    (filled(large), 1 / 2, (64, 64, 64)),
]:
    finer = field.grid.scaled(1 / size) if isinstance(field, ConsistentField) else None
    grid = finer.block((0, 0, 0), shape) if finer else Grid(shape, field.grid.affine @ np.diag([size] * 3 + [1]))
    field.evaluate(grid.block((0, 0, 0), (4, 4, 4)))  # what is imported and moved once per process
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # the peak is from now on
    before = peak()
    field.evaluate(grid)
    print(4 * np.prod(shape), peak() - before, field.evaluation_bytes(grid if finer else shape))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of memory to be had from /proc")
def test_evaluating_a_block_takes_no_more_memory_than_was_said() -> None:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-c", _MEASURE]
    lines = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True, env=here).stdout
    for line in lines.splitlines():
        values, taken, promised = map(int, line.split())
        assert values / 2 < taken < promised < values + 64 * 2**20, line


_LOAD = """
import sys
from headsr.fields.load import load_field

def now(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024

with open("/proc/self/clear_refs", "w") as stream:
    stream.write("5")  # the peak is from now on
before = now("VmRSS")
field = load_field(sys.argv[1])
print(now("VmHWM") - before, now("VmRSS") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of memory to be had from /proc")
def test_loading_a_field_takes_the_memory_of_one_field(tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    save_field(path, consistent(dense((2, 1), (2, 2), shape=(128, 128, 128))))
    command = [sys.executable, "-c", _LOAD, str(path)]
    peak, stays = map(int, subprocess.run(command, check=True, timeout=60, capture_output=True).stdout.split())
    size = path.stat().st_size
    # The kernel counts both in parts, so what stays may seem a page more than the peak.
    assert 0.9 * size < stays and max(peak, stays) < 1.2 * size


def _text(path) -> str:
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as stream:
        return stream.metadata()["headsr"]
