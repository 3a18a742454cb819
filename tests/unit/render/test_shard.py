import itertools
import math
import threading

import numpy as np
import pytest
import zarr

from headsr.render import store as stores
from headsr.render.shard import compress, write_shard
from headsr.render.tiles import lay_out
from headsr.volumes import Storage

STORAGES = [Storage(), Storage("float16"), Storage("uint16", slope=0.01, intercept=-50.0)]
FILL = -12.5
NO_CHUNK = 2**64 - 1


def array_of(folder, layout, storage):
    """A store whose only level has the metadata that headsr writes: its root ``zarr.json`` (absent), and the array."""
    store = folder / "a.ome.zarr" / "zarr.json"
    stores.create_level(store, 0, layout, storage, FILL)
    return store, zarr.open_array(store.parent / "0", mode="r+", config={"write_empty_chunks": False})


def write(store, layout, storage, data, empty=None):
    """Write all shards of ``data`` (X, Y, Z; intensities) as headsr does; returns what it says of each."""
    written = {}
    for tile in layout.tiles:
        chunks = (
            None
            if empty is not None and empty[block.cells(layout.chunk).start]
            else compress(data[block.slices], layout.chunk, storage, FILL)
            for block in tile.blocks(layout.chunk)
        )
        key = layout.key(0, tile)
        written[key] = write_shard(store.parent / key, tile, layout, chunks)
    return written


def chunks_in(path, layout):
    """Place (z, y, x) -> bytes of every chunk in a shard, read as the specification says."""
    content, grid = path.read_bytes(), [s // c for s, c in zip(layout.shard[::-1], layout.chunk[::-1], strict=True)]
    index = np.frombuffer(content[-16 * math.prod(grid) - 4 : -4], "<u8").reshape(*grid, 2)
    ends = {place: tuple(map(int, index[place])) for place in np.ndindex(*grid)}
    assert sum(size for _, size in ends.values() if size != NO_CHUNK) == len(content) - index.nbytes - 4
    return {place: content[at : at + size] for place, (at, size) in ends.items() if at != NO_CHUNK}


def random_case(seed):
    rng = np.random.default_rng(seed)
    shape, chunk = tuple(map(int, rng.integers(1, 30, 3))), int(rng.integers(2, 9))
    layout = lay_out(shape, chunk=chunk, shard=chunk * int(rng.integers(1, 4)))
    empty = rng.random(layout.chunks) < 0.3
    data = rng.normal(100, 30, shape).astype(np.float32)
    for block in layout.whole.blocks(layout.chunk):
        if empty[block.cells(layout.chunk).start]:
            data[block.slices] = FILL
    return layout, data, empty


@pytest.mark.parametrize("storage", STORAGES, ids=lambda storage: storage.dtype)
@pytest.mark.parametrize("seed", range(4))
def test_every_chunk_is_byte_for_byte_what_zarr_writes(tmp_path, storage, seed):
    """zarr-python puts the chunks of a shard in Morton order; where one comes first in the file means nothing."""
    layout, data, empty = random_case(seed)
    ours, array = array_of(tmp_path / "ours", layout, storage)
    theirs, reference = array_of(tmp_path / "theirs", layout, storage)
    write(ours, layout, storage, data, empty)
    reference[:] = storage.encode(data).T
    np.testing.assert_array_equal(array[:], reference[:])
    for tile in layout.tiles:
        key = layout.key(0, tile)
        if (theirs.parent / key).exists():
            assert chunks_in(ours.parent / key, layout) == chunks_in(theirs.parent / key, layout)
            assert (ours.parent / key).stat().st_size == (theirs.parent / key).stat().st_size
        else:  # all fill: zarr writes no shard, and neither does a render
            assert chunks_in(ours.parent / key, layout) == {}


@pytest.mark.parametrize("storage", STORAGES, ids=lambda storage: storage.dtype)
@pytest.mark.parametrize("shape", [(7, 5, 6), (8, 8, 8), (29, 5, 8), (3, 40, 1), (2, 2, 64)])
def test_a_shard_of_one_row_of_chunks_is_the_very_file_that_zarr_writes(tmp_path, storage, shape):
    layout = lay_out(shape, chunk=8, shard=32)
    data = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    ours, _ = array_of(tmp_path / "ours", layout, storage)
    theirs, reference = array_of(tmp_path / "theirs", layout, storage)
    reference[:] = storage.encode(data).T
    for key, written in write(ours, layout, storage, data).items():
        assert (ours.parent / key).read_bytes() == (theirs.parent / key).read_bytes()
        assert stores.is_intact(theirs, key, written)


def test_what_is_beyond_the_edge_of_a_chunk_is_fill_not_whatever_was_there(tmp_path):
    """Else a shard's bytes would hang on the memory that they were made in."""
    storage, data = STORAGES[2], np.full((3, 5, 2), 7.0, np.float32)
    padded = np.full((8, 8, 8), FILL, np.float32)
    padded[:3, :5, :2] = data
    assert compress(data, (8, 8, 8), storage, FILL) == compress(padded, (8, 8, 8), storage, FILL)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_bytes_do_not_depend_on_how_an_array_lies_in_memory(order):
    data = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    lies = np.repeat(data, 2, axis=1)[:, ::2] if order == "strided" else np.array(data, order=order)
    for storage in STORAGES:
        assert compress(lies, (8, 8, 8), storage, FILL) == compress(data, (8, 8, 8), storage, FILL)


def test_bytes_do_not_depend_on_the_threads_that_compress_at_once():
    data = [np.random.default_rng(k).normal(size=(64, 64, 64)).astype(np.float32) for k in range(4)]
    alone = [compress(one, (64, 64, 64), STORAGES[0], FILL) for one in data]
    together = [b""] * 4

    def work(k):
        together[k] = compress(data[k], (64, 64, 64), STORAGES[0], FILL)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize("storage", STORAGES, ids=lambda storage: storage.dtype)
def test_a_flipped_bit_anywhere_in_a_shard_is_an_error(tmp_path, storage):
    layout, rng = lay_out((12, 7, 8), chunk=4, shard=12), np.random.default_rng(0)
    empty = np.zeros(layout.chunks, bool)
    empty[1, 1, 1] = True
    store, array = array_of(tmp_path, layout, storage)
    (key,) = write(store, layout, storage, rng.normal(100, 30, layout.shape).astype(np.float32), empty)
    whole, missed = (store.parent / key).read_bytes(), []
    index = len(whole) - 16 * math.prod(n // c for n, c in zip(layout.shard, layout.chunk, strict=True)) - 4
    array[:]
    for place in itertools.chain(rng.choice(index, 80, replace=False), range(index, len(whole), 3)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (store.parent / key).write_bytes(damaged)
        try:
            array[:]
        except Exception:
            continue
        missed.append(int(place))
    assert missed == []


@pytest.mark.parametrize("kept", [3, 0.5, -1])
def test_a_shard_cut_short_is_an_error(tmp_path, kept):
    layout = lay_out((8, 8, 8), chunk=4, shard=8)
    store, array = array_of(tmp_path, layout, Storage())
    (key,) = write(store, layout, Storage(), np.random.default_rng(0).random(layout.shape, dtype=np.float32))
    whole = (store.parent / key).read_bytes()
    array[:]
    (store.parent / key).write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else kept])
    with pytest.raises(Exception):  # noqa: B017 - whatever zarr raises
        array[:]


def test_an_empty_file_is_not_an_intact_shard(tmp_path):
    """zarr-python takes one for a shard that is all fill, and says nothing."""
    layout = lay_out((8, 8, 8), chunk=4, shard=8)
    store, _ = array_of(tmp_path, layout, Storage())
    ((key, written),) = write(store, layout, Storage(), np.ones(layout.shape, np.float32)).items()
    assert stores.is_intact(store, key, written)
    (store.parent / key).write_bytes(b"")
    assert not stores.is_intact(store, key, written)


def failing_after(chunks, number):
    yield from itertools.islice(chunks, number)
    raise KeyboardInterrupt


@pytest.mark.parametrize("before", [None, b"the shard of an earlier render"])
def test_chunks_that_fail_leave_what_was_there_and_nothing_else(tmp_path, before):
    layout = lay_out((8, 8, 8), chunk=4, shard=8)
    path = tmp_path / "c" / "0" / "0" / "0"
    path.parent.mkdir(parents=True)
    if before:
        path.write_bytes(before)
    for chunks in (failing_after([b"1234"] * 8, 5), [b"1234"] * 7, [b"1234"] * 9, [b"1234", None, 4] * 3):
        with pytest.raises((KeyboardInterrupt, ValueError, TypeError)):
            write_shard(path, layout.tiles[0], layout, chunks)
        assert {one: one.read_bytes() for one in path.parent.iterdir()} == ({path: before} if before else {})


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_intensity_that_is_not_finite_is_never_stored(dtype, wrong):
    data = np.zeros((4, 4, 4), np.float32)
    data[1, 2, 3] = wrong
    with pytest.raises(FloatingPointError, match="not all intensities are finite"):
        compress(data, (4, 4, 4), Storage(dtype), 0.0)


@pytest.mark.parametrize(
    ("storage", "wrong"), [(Storage("float16"), 7e4), (Storage("uint16"), 65536), (STORAGES[2], -51)]
)
def test_an_intensity_beyond_what_is_stored_is_refused_not_wrapped(storage, wrong):
    data = np.zeros((4, 4, 4), np.float32)
    data[1, 2, 3] = wrong
    with pytest.raises(FloatingPointError, match=f"{storage.dtype} .* Render as float32"):
        compress(data, (4, 4, 4), storage, 0.0)
