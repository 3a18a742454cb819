import multiprocessing
import os
import shutil
import threading

import nibabel as nib
import numpy as np
import pytest
import zarr

from headsr.files import read_json, sha256_of, tree_hash, write_json
from headsr.render import store as stores
from headsr.render.plan import plan_volume
from headsr.render.pyramid import level_grids
from headsr.render.shard import Written, compress, write_shard
from headsr.render.tiles import lay_out
from headsr.volumes import Grid, Storage

FLOAT32 = Storage()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sub-01_res-hi_desc-sr_T1w.ome.zarr" / "zarr.json"


def random_affine(rng):
    """Oblique, flipped, permuted, anisotropic."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(rng.uniform(0.06, 3, 3))
    affine[:3, 3] = rng.uniform(-150, 150, 3)
    return affine


def write(root, data, grid, *, chunk=4, shard=8, fingerprint="a", storage=FLOAT32):
    stores.begin(root, fingerprint)
    volume = plan_volume(grid, storage, chunk=chunk, shard=shard)
    for level, layout in enumerate(volume.layouts):
        stores.create_level(root, level, layout, storage, 0.0)
    layout, shards = volume.layouts[0], {}
    for tile in layout.tiles:
        blocks = tile.blocks(layout.chunk)
        chunks = (compress(data[block.slices], layout.chunk, storage, 0.0) for block in blocks)
        shards[layout.key(0, tile)] = write_shard(root.parent / layout.key(0, tile), tile, layout, chunks)
    commit(root, volume.grids, shards, storage=storage, fingerprint=fingerprint)


def commit(root, grids, shards, *, storage=FLOAT32, fingerprint="a"):
    record = {"version": "test"}
    stores.commit(root, list(grids), shards, name="x", storage=storage, fingerprint=fingerprint, record=record)


@pytest.mark.parametrize("shape", [(5, 6, 7), (17, 9, 16), (1, 20, 3)])
def test_what_is_written_is_read(root, shape):
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write(root, data, Grid(shape, np.eye(4)))
    np.testing.assert_array_equal(stores.read_level(root), data)
    assert zarr.open_group(root.parent, mode="r")["0"].shape == shape[::-1]


def test_the_affine_comes_back_to_a_hundredth_of_a_voxel(root):
    rng = np.random.default_rng(3)
    for _ in range(20):
        grid = Grid((30, 40, 50), random_affine(rng))
        stores.begin(root, "a")
        stores.create_level(root, 0, lay_out(grid.shape), FLOAT32, 0.0)
        commit(root, level_grids(grid), {})
        back = stores.read_grid(root)
        assert back.same_as(grid)
        scale, translation = stores.read_scales(root)[0]
        directions = grid.affine[:3, :3] / grid.voxel_size
        index = np.array([29, 0, 49])
        np.testing.assert_allclose(directions @ (scale * index + translation), grid.affine[:3] @ [*index, 1], atol=1e-6)


def test_scale_and_translation_of_a_straight_grid_are_its_affine(root):
    affine = np.diag([0.5, 1, 2, 1.0])
    affine[:3, 3] = [-10, -20, 30]
    write(root, np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8), affine))
    scale, translation = stores.read_scales(root)[0]
    np.testing.assert_array_equal(scale, [0.5, 1, 2])
    np.testing.assert_array_equal(translation, [-10, -20, 30])


def test_without_its_root_metadata_a_store_is_not_finished(root):
    data = np.ones((8, 8, 8), np.float32)
    write(root, data, Grid((8, 8, 8), np.eye(4)))
    stores.begin(root, "a")
    assert not root.exists()


def test_the_root_changes_with_any_voxel_though_nothing_else_in_it_does(root):
    data, grid = np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4))
    write(root, data, grid)
    before = read_json(root)["attributes"]["headsr"]["content"]
    write(root, data, grid)
    assert (
        read_json(root)["attributes"]["headsr"]["content"]
        == before
        == tree_hash(root.parent, leaving_out={"zarr.json"})
    )
    data[7, 0, 3] = 2
    write(root, data, grid, fingerprint="b")
    assert read_json(root)["attributes"]["headsr"]["content"] != before


def test_shards_of_the_same_fingerprint_stay_and_those_of_another_go(root):
    shard = root.parent / "0" / "c" / "0" / "0" / "0"
    stores.begin(root, "a")
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"a shard")
    written = Written(sha256_of(shard), 7)
    stores.record_shard(root, "0/c/0/0/0", written)
    stores.begin(root, "a")
    assert stores.recorded_shards(root) == {"0/c/0/0/0": written}
    assert stores.is_intact(root, "0/c/0/0/0", written)
    shard.write_bytes(b"a shorn")
    assert not stores.is_intact(root, "0/c/0/0/0", written)
    stores.begin(root, "b")
    assert stores.recorded_shards(root) == {} and not shard.exists()
    assert [path.name for path in root.parent.parent.iterdir()] == [root.parent.name]


def test_a_part_does_not_replace_another_volume(root):
    stores.begin(root, "a", replace=False)
    stores.begin(root, "a", replace=False)
    with pytest.raises(stores.StoreError, match="holds another volume"):
        stores.begin(root, "b", replace=False)


def begin_a_part(root):
    stores.begin(root, "a", replace=False)


def test_parts_may_begin_one_volume_at_once(root):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for _ in range(20):
            pool.starmap(begin_a_part, [(root,)] * 4)
            assert stores.recorded_shards(root) == {}
            shutil.rmtree(root.parent)
    assert list(root.parent.parent.iterdir()) == []


def test_a_line_that_a_kill_cut_short_does_not_count(root):
    stores.begin(root, "a")
    stores.record_shard(root, "0/c/0/0/0", Written("f" * 64, 3))
    (notes,) = stores.work_folder(root).glob("shards-*.jsonl")
    with open(notes, "a") as out:
        out.write('\n{"key": "0/c/0/0/1", "sha2')
    assert list(stores.recorded_shards(root)) == ["0/c/0/0/0"]


def test_what_no_shard_accounts_for_is_gone_when_the_store_is_whole(root):
    data = np.ones((8, 8, 8), np.float32)
    stores.begin(root, "a")
    (root.parent / "0" / "c").mkdir(parents=True)
    (root.parent / "0" / "c" / ".host.1.2.0.partial").touch()
    (root.parent / "0" / f"zarr.{'0' * 32}.partial").touch()  # as zarr names what it is writing
    (root.parent / ".nfs0001").touch()
    write(root, data, Grid((8, 8, 8), np.eye(4)))
    names = {path.name for path in root.parent.rglob("*") if path.is_file()}
    assert names == {"zarr.json", "0"} and not stores.work_folder(root).exists()


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    "name",
    ["raw/thesis.txt", "0.txt", ".zattrs", ".zgroup", ".git/HEAD", ".DS_Store", "0/c/0/0/notes.txt", "0/c/0/0/0/0/0"],
)
def test_what_headsr_did_not_make_is_not_deleted(root, name, ours):
    if ours:
        write(root, np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4)))
        if name == "0/c/0/0/0/0/0":
            (root.parent / "0/c/0/0/0").unlink()
    foreign = root.parent / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_text("{}")
    with pytest.raises(stores.StoreError, match=r"holds (\S+), which headsr did not make") as refused:
        stores.begin(root, "b")
    assert not ours or name.startswith(str(refused.value).partition("holds ")[2].partition(",")[0])
    assert foreign.read_text() == "{}" and root.exists() == ours


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"attributes": []}', "{"])
def test_a_store_that_does_not_say_that_it_is_headsrs_is_not_deleted(root, content):
    """Its names alone could be headsr's: it is any zarr."""
    shard = root.parent / "0/c/0/0/0"
    shard.parent.mkdir(parents=True)
    for path in (shard, root.parent / "0/zarr.json", root):
        path.write_text(content)
    with pytest.raises(stores.StoreError, match=r"which headsr did not make and will not replace"):
        stores.begin(root, "a")
    assert shard.exists() and root.exists()


@pytest.mark.parametrize("name", ["0", "0/c", "0/c/0/0/0", "nifti", "zarr.json", ".rendering", "0/zarr.json"])
@pytest.mark.parametrize("fingerprint", ["a", "b"])
def test_a_link_inside_a_store_is_not_written_through(root, tmp_path, name, fingerprint):
    write(root, np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4)))
    link, elsewhere = root.parent / name, tmp_path / "elsewhere"
    if link.exists():
        link.rename(elsewhere)
    else:
        elsewhere.mkdir()
    link.symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.rglob("*")]}
    with pytest.raises(stores.StoreError, match=rf"holds {name}, which headsr did not make and will not .* through"):
        stores.begin(root, fingerprint)
    assert link.is_symlink() and {p: p.stat().st_mtime_ns for p in [elsewhere, *elsewhere.rglob("*")]} == before


def test_what_comes_in_while_a_store_is_written_is_not_deleted(root, monkeypatch):
    commit, foreign = stores.commit, root.parent / "thesis.txt"

    def late(*arguments, **more):
        foreign.write_text("my own")
        commit(*arguments, **more)

    monkeypatch.setattr(stores, "commit", late)
    with pytest.raises(stores.StoreError, match=r"holds thesis\.txt, which headsr did not make"):
        write(root, np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4)))
    assert foreign.read_text() == "my own" and not root.exists()


@pytest.mark.parametrize("kind", ["fresh", "stale"])
def test_of_what_is_named_like_a_store_on_its_way_only_headsrs_own_goes(root, kind):
    root.parent.parent.mkdir(exist_ok=True)
    theirs, ours = (root.parent.with_name(f".host.{n}.{kind}.{root.parent.name}") for n in (1, 2))
    (theirs / "0").mkdir(parents=True)
    (theirs / "0" / "thesis.txt").write_text("my own")
    (ours / "0" / "c" / "0" / "0").mkdir(parents=True)
    (ours / "0" / "c" / "0" / "0" / "1").write_bytes(b"a shard")
    stores.begin(root, "a")
    assert (theirs / "0" / "thesis.txt").exists() and not ours.exists()


def test_a_file_where_a_store_goes_is_not_deleted(root):
    root.parent.write_text("my own")
    with pytest.raises(stores.StoreError, match="is a file, which headsr did not make"):
        stores.begin(root, "a")
    assert root.parent.read_text() == "my own"


@pytest.mark.parametrize("left", ["nothing", "notes", "no root", "of NFS"])
def test_what_a_kill_or_snakemake_left_of_a_store_is_replaced(root, left):
    root.parent.mkdir()
    if left == "notes":
        stores.begin(root, "b")
    elif left == "no root":  # as Snakemake begins a job: it deletes the declared output alone
        write(root, np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4)))
        root.unlink()
    elif left == "of NFS":
        (root.parent / ".nfs0001").touch()
    assert stores.begin(root, "a")
    assert stores.holds(root, "a") and os.listdir(root.parent) == [".rendering"]


def test_begun_again_a_store_is_not_anew(root):
    assert stores.begin(root, "a") and not stores.begin(root, "a") and stores.begin(root, "b")


def harm(root, how):
    shard = root.parent / "0/c/0/0/0"
    if how == "gone":
        return shard.unlink()
    content = shard.read_bytes()
    return shard.write_bytes(content[:-1] if how == "cut short" else bytes([content[0] ^ 1]) + content[1:])


def test_what_is_strange_in_a_store_is_no_traceback(root):
    write(root, np.ones((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4)))
    odd = root.parent / "caf\udce9"  # a name that is not UTF-8
    odd.write_text("thesis")
    assert not stores.is_finished(root, "a")
    odd.unlink()
    assert stores.is_finished(root, "a")
    shard = root.parent / "0/c/0/0/0"
    shard.unlink()
    shard.symlink_to(shard.name)
    assert stores.lost_shards(root.parent, {"0/c/0/0/0": 9}) == ["0/c/0/0/0"]
    root.unlink()
    root.mkdir()
    with pytest.raises(stores.StoreError, match=r"zarr\.json: is not a volume that headsr wrote, or is damaged"):
        stores.is_finished(root, "a")


@pytest.mark.parametrize("how", ["gone", "cut short", "another bit"])
def test_a_store_that_lost_a_shard_is_not_finished(root, how):
    write(root, np.ones((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4)))
    assert stores.is_finished(root, "a")
    harm(root, how)
    assert not stores.is_finished(root, "a")


@pytest.mark.parametrize("how", ["gone", "cut short"])
def test_a_level_that_lost_a_shard_is_not_read_as_empty_space(root, how):
    write(root, np.ones((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4)))
    harm(root, how)
    with pytest.raises(stores.StoreError, match=r"0/c/0/0/0: is gone or cut short\. Move .*zarr\.json"):
        stores.read_level(root)


@pytest.mark.parametrize("reading", [stores.read_level, stores.read_grid, stores.read_scales, stores.read_record])
@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json", "nifti/zarr.json", "nifti/c/0"])
def test_what_describes_a_store_is_as_it_was_written_or_refused(root, name, reading):
    write(root, np.ones((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4)))
    reading(root)
    described = root.parent / name
    content = described.read_bytes()
    for place in range(len(content) // 2, len(content), len(content) // 7):
        described.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"ome\.zarr/.*(?:is not as it was written|gone or not as it was|damaged)"):
            reading(root)
    described.unlink()
    with pytest.raises((stores.StoreError, FileNotFoundError)):
        reading(root)


def test_a_store_without_a_seal_is_read_and_one_that_lost_it_is_not(root):
    write(root, np.ones((16, 16, 16), np.float32), Grid((16, 16, 16), np.eye(4)))
    content = read_json(root)
    held = content["attributes"]["headsr"]
    seal, metadata = held.pop("seal"), held["metadata"]
    write_json(root, content)
    with pytest.raises(stores.StoreError, match="is not as it was written"):
        stores.read_level(root)
    del held["metadata"]
    write_json(root, content)
    assert stores.read_level(root).all()
    held["seal"] = seal
    write_json(root, content)
    with pytest.raises(stores.StoreError, match="is not as it was written"):
        stores.read_level(root)
    assert metadata


@pytest.mark.parametrize("how", ["gone", "cut short"])
def test_a_shard_that_is_lost_before_the_end_is_noticed(root, how, monkeypatch):
    grid = Grid((16, 16, 16), np.eye(4))
    commit = stores.commit

    def harmed_before(*arguments, **more):
        harm(root, how)
        commit(*arguments, **more)

    monkeypatch.setattr(stores, "commit", harmed_before)
    with pytest.raises(stores.StoreError, match="1 of 8 shards are not there as they were written, 0/c/0/0/0"):
        write(root, np.ones(grid.shape, np.float32), grid)
    assert not root.exists()


def test_nothing_is_made_of_a_shard_that_cannot_be_seen(root, monkeypatch):
    monkeypatch.setattr(stores, "_PATIENCE", 0.3)
    late = root.parent / "0/c/0/0/1"
    late.parent.mkdir(parents=True)
    threading.Timer(0.15, late.touch).start()
    stores.await_shards(root, ["0/c/0/0/1"])
    assert late.exists()
    with pytest.raises(stores.StoreError, match="0/c/0/0/2: was written and is gone"):
        stores.await_shards(root, ["0/c/0/0/1", "0/c/0/0/2"])


@pytest.mark.parametrize("storage", [Storage("uint16", 0.01, -3.0), Storage("float16")])
def test_intensities_come_back_within_the_rounding_that_is_recorded(root, storage):
    data = np.random.default_rng(0).uniform(-2, 600, (9, 6, 7)).astype(np.float32)
    write(root, data, Grid(data.shape, np.eye(4)), storage=storage)
    assert stores.read_storage(root) == storage and stores.open_level(root).dtype == storage.dtype
    bound = 0.00501 if storage.dtype == "uint16" else np.abs(data) / 2048
    assert (np.abs(stores.read_level(root) - data) <= bound).all()
    header = nib.Nifti1Header(zarr.open_array(root.parent / "nifti", mode="r")[:].tobytes())
    slope, intercept = header.get_slope_inter()
    assert (slope or 1.0, intercept or 0.0) == (storage.slope, storage.intercept)


def test_only_a_folder_named_ome_zarr_is_emptied(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(ValueError, match=r"ome\.zarr"):
        stores.begin(tmp_path / "zarr.json", "a")
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_a_shard_is_an_error_not_another_voxel(root, where):
    data = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    write(root, data, Grid(data.shape, np.eye(4)), shard=16)
    shard = root.parent / "0" / "c" / "0" / "0" / "0"
    stores.read_level(root)
    content = bytearray(shard.read_bytes())
    content[int(where * len(content))] ^= 8
    shard.write_bytes(content)
    with pytest.raises(Exception):  # noqa: B017 - whatever the codec raises
        stores.read_level(root)
