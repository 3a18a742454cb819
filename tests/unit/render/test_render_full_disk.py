import hashlib
import re
import shutil

import pytest
from known_fields import Noise

from headsr.render.disk import DiskFullError
from headsr.render.field import Manner, render
from headsr.render.publish import Outputs

SHAPE = (48, 48, 80)
SHARDS, CHUNKS, CHUNKS_OF_A_SHARD = 2 * 2 * 3 + 2, 3 * 3 * 5, 8
PAGE = 4096


def outputs_in(folder):
    return Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_with_a_little_more_room_each_time_it_goes_on_where_the_disk_was_full(small_disk, tmp_path):
    manner, whole = Manner(chunk=16, shard=32, workers=2), outputs_in(tmp_path / "whole")
    render(Noise(SHAPE), whole, identity="noise", manner=manner)
    field, outputs, filling = Noise(SHAPE), outputs_in(small_disk / "out"), small_disk / "filling"
    with pytest.raises(OSError, match="No space left"), open(filling, "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(PAGE))
    complete, late, pages_of_preview = [], 0, whole.preview.stat().st_size // PAGE
    while True:
        try:
            render(field, outputs, identity="noise", manner=manner)
            break
        except DiskFullError as error:
            assert f"{outputs.store.parent}" in str(error)
            complete.append(int(re.search(r"(\d+) shards are complete", str(error))[1]))
        late += outputs.preview.exists()
        assert not outputs.store.exists()
        if complete[-1] == SHARDS:
            field.evaluate = None  # complete shards are not rendered again
        # Metadata are a page each, shards many.
        more = 1 if complete[-1] in (0, SHARDS) else 12
        if complete.count(SHARDS) == 1 or late == 1:  # a second time, the preview is written beside the first
            more = max(1, pages_of_preview - shutil.disk_usage(small_disk).free // PAGE)
        with open(filling, "r+b") as stream:
            stream.truncate(filling.stat().st_size - more * PAGE)
    filling.unlink()
    assert digest(small_disk / "out") == digest(tmp_path / "whole")
    assert complete == sorted(complete)
    assert complete.count(0) > 1 and len(set(complete)) > 5 and late > 1  # the commit failed too
    assert field.calls < CHUNKS + CHUNKS_OF_A_SHARD * (manner.workers + 1) * (len(complete) - complete.count(SHARDS))
