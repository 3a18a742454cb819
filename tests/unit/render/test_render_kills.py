import json
import subprocess
import sys
from pathlib import Path

import pytest

from headsr.render import store as stores
from headsr.render.shard import Written

RENDERS = Path(__file__).with_name("killed_renders.py")
CHUNKS_OF_A_SHARD = 2
KINDS = ("fresh", "stale")  # stores on their way in and out


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What ``killed_renders.main`` found."""
    command = [sys.executable, RENDERS, tmp_path_factory.mktemp("killed")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@pytest.mark.long
def test_killed_at_fifty_random_moments_a_marked_store_is_always_whole(found):
    assert found["random"]["kills"] >= 50
    assert found["random"]["wrong"] == []
    assert found["random"]["finished"] >= 3  # else all kills fell into the beginning


@pytest.mark.long
def test_killed_before_each_change_on_disk_it_ends_in_the_same_folder_hidden_leftovers_included(found):
    every = found["every"]
    assert every["wrong"] == []
    assert every["kills"] > 20  # what a render that finds all shards there changes
    assert every["marked"] >= 1  # killed between the commit and the deletion of the notes


@pytest.mark.long
def test_a_kill_costs_no_more_than_the_shard_in_work(found):
    every = found["every"]
    assert every["evaluated"] < found["chunks"] + CHUNKS_OF_A_SHARD * every["kills"]
    nothing = found["damaged"]["nothing"]
    assert nothing["same"] and nothing["evaluated"] <= found["chunks"] + CHUNKS_OF_A_SHARD - found["damaged"]["before"]


@pytest.mark.long
@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty", "gone"])
def test_a_shard_damaged_after_a_kill_is_noticed_and_rendered_again(found, damage):
    left = found["damaged"]["nothing"]["evaluated"]
    assert found["damaged"][damage] == {"same": True, "evaluated": left + CHUNKS_OF_A_SHARD}


@pytest.mark.long
def test_a_damaged_shard_of_the_pyramid_is_averaged_again(found):
    assert found["damaged"]["mean"] == found["damaged"]["nothing"]


@pytest.mark.long
def test_a_shard_whose_note_a_kill_cut_short_is_rendered_again_and_no_other(found):
    left = found["damaged"]["nothing"]["evaluated"]
    assert found["damaged"]["torn note"] == {"same": True, "evaluated": left + CHUNKS_OF_A_SHARD}


@pytest.mark.long
def test_notes_that_are_not_text_are_no_harm(found):
    assert found["damaged"]["garbled notes"] == found["damaged"]["nothing"]


@pytest.mark.long
@pytest.mark.parametrize("change", ["field", "stage", "grid", "dtype", "chunks", "air"])
def test_shards_of_another_render_are_never_mixed_in(found, change):
    assert found["changed"][change] == {"same": True, "kept": 0}


@pytest.mark.parametrize("alone", [True, False])
def test_what_kills_left_half_written_goes_when_a_render_goes_on_but_not_while_others_work_too(tmp_path, alone):
    """Shards are gigabytes, and fifty kills would leave fifty."""
    store = tmp_path / "a.ome.zarr" / "zarr.json"
    stores.begin(store, "a")
    shard = store.parent / "0" / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    left = [shard.with_name(".node.77.1.0.partial"), *(tmp_path / f".node.77.{kind}.a.ome.zarr" for kind in KINDS)]
    for path in (shard, *left):
        path.mkdir() if path.suffix == ".zarr" else path.write_text("1234")
    stores.begin(store, "a", replace=alone)
    assert shard.exists()
    assert [path.exists() for path in left] == [not alone] * 3


def test_a_note_after_one_that_was_cut_short_counts(tmp_path):
    """The same process goes on with its own file once a full disk has room."""
    store = tmp_path / "a.ome.zarr" / "zarr.json"
    stores.begin(store, "a")
    for key in ("0/c/0/0/0", "0/c/0/0/1"):
        stores.record_shard(store, key, Written("abc", 3))
    (notes,) = stores.work_folder(store).glob("shards-*")
    notes.write_text(notes.read_text()[:-7])
    stores.record_shard(store, "0/c/0/0/2", Written("abc", 3))
    assert set(stores.recorded_shards(store)) == {"0/c/0/0/0", "0/c/0/0/2"}


@pytest.mark.parametrize("name", [".zgroup", ".zattrs", ".zarray"])
def test_a_store_of_zarr_2_is_not_deleted(tmp_path, name):
    store = tmp_path / "a.ome.zarr" / "zarr.json"
    store.parent.mkdir()
    (store.parent / name).write_text("{}")
    with pytest.raises(stores.StoreError, match="did not make"):
        stores.begin(store, "a")
    assert (store.parent / name).exists()
