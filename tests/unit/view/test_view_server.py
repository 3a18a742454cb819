import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest
import zarr
from stores_to_view import write_store
from zarr.storage import FsspecStore

from headsr.render import store as stores
from headsr.render.publish import Outputs, publish_volume
from headsr.view import ViewServer, levels
from headsr.volumes import Grid

# Oblique: turned by 20 degrees about x and 10 about z.
AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.17, x=0.35) @ np.diag([0.9, 1.1, 1.3]), [-40, -50, 7])
SHAPE = (70, 33, 81)


@contextlib.contextmanager
def running(*stores):
    with ViewServer(stores) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path, method="GET", keyed=True, **headers):
    """Status, headers and body of one request, whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, f"/{server.key}/{path}" if keyed else path, skip_host="Host" in names)
    for name, value in names.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.headers, answer.read()


def head(shape=SHAPE):
    return np.random.default_rng(0).random(shape, dtype=np.float32) * 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("view") / "sub-01_desc-sr_T1w.ome.zarr"
    write_store(root, head(), Grid(SHAPE, AFFINE))
    (root / "bytes").write_bytes(bytes(range(200)))
    (root.parent / "secret.txt").write_text("a name")
    (root / "leads-outside").symlink_to(root.parent / "secret.txt")
    (root / "folder-outside").symlink_to(root.parent)
    (root / "leads-to-itself").symlink_to("leads-to-itself")
    (root / "leads-inside").symlink_to("bytes")
    return root


@pytest.fixture(scope="module")
def server(store):
    with running(store) as server:
        yield server


RAW = "0/sub-01_desc-sr_T1w.ome.zarr"


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        (None, 200, 0, 199),
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=190-", 206, 190, 199),
        ("bytes=190-5000", 206, 190, 199),
        ("bytes=-7", 206, 193, 199),
        ("bytes=-5000", 206, 0, 199),
        ("bytes=200-", 416, None, None),
        ("bytes=-0", 416, None, None),
        ("bytes=19-10", 200, 0, 199),
        ("bytes=0-1,4-5", 200, 0, 199),
        ("lines=0-1", 200, 0, 199),
        ("bytes=x-", 200, 0, 199),
        ("bytes=" + "9" * 6000 + "-", 200, 0, 199),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_of_the_store_is_served_in_ranges(server, method, asked, status, first, last):
    got, headers, body = ask(server, f"{RAW}/bytes", method, **({} if asked is None else {"Range": asked}))
    content = b"" if first is None else bytes(range(first, last + 1))
    assert got == status
    assert headers["Accept-Ranges"] == "bytes"
    assert int(headers["Content-Length"]) == len(content)
    assert body == (content if method == "GET" else b"")
    said = {200: None, 206: f"bytes {first}-{last}/200", 416: "bytes */200"}[status]
    assert headers["Content-Range"] == said


def test_a_range_of_an_older_file_is_answered_with_the_whole_one(server):
    assert ask(server, f"{RAW}/bytes", Range="bytes=0-0", If_Range='"tag"')[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        f"{RAW}/../secret.txt",
        f"{RAW}/%2e%2e/secret.txt",
        f"{RAW}/..%2fsecret.txt",
        f"{RAW}/..%5csecret.txt",
        f"{RAW}/0/../../secret.txt",
        f"{RAW}/%252e%252e/secret.txt",
        f"{RAW}//etc/passwd",
        f"{RAW}/%2fetc%2fpasswd",
        f"{RAW}/bytes%00",
        f"{RAW}/bytes/",
        f"{RAW}/leads-outside",
        f"{RAW}/folder-outside/secret.txt",
        f"{RAW}/leads-to-itself",
        f"{RAW}/{'x' * 300}",
        f"{RAW}/",
        f"{RAW}",
        f"{RAW}/0",
        f"{RAW}/0/",
        "0/secret.txt",
        "0/../secret.txt",
        "1/sub-01_desc-sr_T1w.ome.zarr/bytes",
        "0/level-9.nii",
        "page/index.html",
        "../server.py",
        "niivue.txt",
    ],
)
def test_nothing_outside_the_store_is_served_and_no_folder_listed(server, path):
    status, _, body = ask(server, path)
    assert status == 404
    assert b"a name" not in body and b"zarr.json" not in body


def test_a_link_that_stays_inside_the_store_is_followed(server):
    assert ask(server, f"{RAW}/leads-inside")[::2] == (200, bytes(range(200)))


def test_another_host_name_is_refused(server):
    port = server.server_port
    for name in ("attacker.example", f"attacker.example:{port}", f"127.0.0.1.attacker.example:{port}", "127.0.0.1"):
        assert ask(server, "volumes.json", Host=name)[0] == 421
    assert ask(server, f"http://attacker.example/{server.key}/volumes.json", keyed=False)[0] == 421
    assert ask(server, "volumes.json", Host=f"localhost:{port}")[0] == 200


def test_without_the_key_there_is_nothing(server):
    for path in ("/", "/volumes.json", f"/{server.key[:-1]}/volumes.json", "/%C3%A9/"):
        assert ask(server, path, keyed=False)[0] == 404


def test_only_get_and_head_are_understood(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        assert ask(server, "volumes.json", method)[0] == 501


def test_only_its_own_page_may_read_it_and_the_page_may_ask_nobody_else(server):
    own = f"http://127.0.0.1:{server.server_port}"
    assert ask(server, "", Origin=own)[1]["Access-Control-Allow-Origin"] == own
    for origin in ("http://attacker.example", "null", "http://127.0.0.1:1"):
        _, headers, _ = ask(server, "", Origin=origin)
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_nothing_of_a_scan_stays_in_a_cache(server):
    for path in ("", "volumes.json", "0/level-0.nii", f"{RAW}/bytes", "nothing"):
        assert ask(server, path, "HEAD")[1]["Cache-Control"] == "no-store"


def test_it_listens_on_the_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.family == socket.AF_INET


def nifti(server, path):
    status, headers, body = ask(server, path)
    assert status == 200, body
    assert int(headers["Content-Length"]) == len(body)
    return nib.Nifti1Image.from_bytes(body)


STORED = {"float32": (1.0, 0.0), "float16": (1.0, 0.0), "uint16": (0.02, -100.0)}


@pytest.mark.parametrize("dtype", STORED)
def test_a_level_has_the_values_and_the_affine_of_the_store(tmp_path, dtype):
    slope, intercept = STORED[dtype]
    grid = Grid(SHAPE, AFFINE)
    stored = write_store(tmp_path / "a.ome.zarr", head(), grid, dtype=dtype, slope=slope, intercept=intercept)
    with running(tmp_path / "a.ome.zarr") as server:
        described = json.loads(ask(server, "volumes.json")[2])[0]
        assert [tuple(level["shape"]) for level in described["levels"]] == [numbers.shape for numbers in stored]
        for level, numbers in enumerate(stored):
            image = nifti(server, f"0/level-{level}.nii")
            values = numbers.astype(np.float64) * slope + intercept
            np.testing.assert_allclose(image.get_fdata(), values, rtol=1e-6, atol=1e-3 * slope)
            # Cells: the first centre of a level lies in the middle of the voxels that it is the mean of.
            affine = AFFINE @ nib.affines.from_matvec(np.eye(3) * 2**level, [0.5 * 2**level - 0.5] * 3)
            np.testing.assert_allclose(image.affine, affine, atol=1e-4)
            assert image.header["sform_code"] > 0 and image.header["qform_code"] == 0
            np.testing.assert_allclose(image.header.get_zooms(), np.array([0.9, 1.1, 1.3]) * 2**level, rtol=1e-6)


def test_a_program_that_reads_ome_zarr_reads_the_store_itself(server):
    store = FsspecStore.from_url(f"{server.url}{server.raw_path(0)}/0", read_only=True)
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[3:20, 5:9, 60:].T, head()[60:, 5:9, 3:20])


@pytest.mark.parametrize("inside", [(35, 16, 40), (0, 0, 0), (69, 32, 80), (-500, 4, 9000)])
def test_a_box_lies_around_its_point_and_has_the_values_there(server, monkeypatch, inside):
    monkeypatch.setattr(levels, "BOX", 20)
    point = nib.affines.apply_affine(AFFINE, inside)
    image = nifti(server, f"0/level-0.nii?at={','.join(map(str, point))}")
    assert image.shape == (20, 20, 20)
    corner = np.linalg.solve(AFFINE, [*image.affine[:3, 3], 1])[:3]
    start = np.rint(corner).astype(int)
    np.testing.assert_allclose(corner, start, atol=1e-3)
    expected = np.clip(np.array(inside) - 10, 0, np.array(SHAPE) - 20)
    np.testing.assert_array_equal(start, expected)
    box = tuple(slice(a, a + 20) for a in start)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), head()[box])


def test_a_level_too_large_to_show_whole_is_given_as_a_box_only(server, monkeypatch):
    monkeypatch.setattr(levels, "SHOWN_WHOLE", 100_000)
    status, _, body = ask(server, "0/level-0.nii")
    assert status == 400 and b"ask for a box" in body
    assert ask(server, "0/level-0.nii?at=1,2,3", "HEAD")[0] == 200
    assert [level["whole"] for level in json.loads(ask(server, "volumes.json")[2])[0]["levels"]] == [False, True]


@pytest.mark.parametrize("query", ["at=", "at=1,2", "at=1,2,nan", "at=1,2,1e99", "at=1,2,x", "x=1"])
def test_a_box_without_a_point_is_refused(server, query):
    assert ask(server, f"0/level-0.nii?{query}")[0] == 400


def test_empty_space_that_was_not_written_is_shown(tmp_path):
    write_store(tmp_path / "a.ome.zarr", head((40, 40, 40)), Grid((40, 40, 40), AFFINE), fill=-3.0, write=False)
    with running(tmp_path / "a.ome.zarr") as server:
        assert np.unique(nifti(server, "0/level-0.nii").get_fdata()) == [-3.0]


def test_a_level_is_sent_in_little_memory(tmp_path, monkeypatch):
    shape = (64, 64, 384)
    write_store(tmp_path / "a.ome.zarr", np.zeros(shape, np.float32), Grid(shape, AFFINE), fill=1.0)
    monkeypatch.setattr(levels, "_SLAB", 64 * 64 * 16)
    volume = levels.StoredVolume(tmp_path / "a.ome.zarr")
    tracemalloc.start()
    size, pieces = volume.nifti(0, (0, 0, 0), shape)
    assert size == sum(map(len, pieces)) == 352 + 4 * np.prod(shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 6


def test_a_damaged_chunk_cuts_the_answer_short_and_is_told(tmp_path, capfd):
    write_store(tmp_path / "a.ome.zarr", head(), Grid(SHAPE, AFFINE))
    shard = tmp_path / "a.ome.zarr" / "0" / "c" / "2" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[200:300] = bytes(100)
    shard.write_bytes(content)
    with running(tmp_path / "a.ome.zarr") as server, pytest.raises(http.client.IncompleteRead):
        ask(server, "0/level-0.nii")
    assert re.search(r"a\.ome\.zarr: level 0 cannot be read", capfd.readouterr().err)


@pytest.mark.parametrize("then", ["nothing", "another volume", "the same volume"])
def test_a_store_that_is_replaced_or_deleted_is_refused(tmp_path, then):
    root = tmp_path / "a.ome.zarr"
    write_store(root, head(), Grid(SHAPE, AFFINE))
    with running(root) as server:
        assert ask(server, "0/level-0.nii")[0] == 200
        shutil.rmtree(root)
        if then != "nothing":
            shape = SHAPE if then == "the same volume" else (40, 50, 60)
            write_store(root, head(shape), Grid(shape, AFFINE))
        for path in ("level-0.nii", "level-0.nii?at=1,2,3", "a.ome.zarr/0/zarr.json", "a.ome.zarr/0/c/9/9/9"):
            status, _, body = ask(server, f"0/{path}")
            assert (status, body) == (409, b"a.ome.zarr: was replaced or deleted; start headsr view again\n")


def test_a_store_that_is_deleted_while_it_is_read_is_read_no_further(tmp_path, monkeypatch):
    write_store(tmp_path / "a.ome.zarr", head(), Grid(SHAPE, AFFINE))
    monkeypatch.setattr(levels, "_SLAB", 16 * 70 * 33)
    _, pieces = levels.StoredVolume(tmp_path / "a.ome.zarr").nifti(0, (0, 0, 0), SHAPE)
    next(pieces)  # the header
    np.testing.assert_array_equal(np.frombuffer(next(pieces), np.float32)[:70], head()[:, 0, 0])
    shutil.rmtree(tmp_path / "a.ome.zarr")
    with pytest.raises(levels.ReplacedError, match=r"a\.ome\.zarr: was replaced or deleted"):
        next(pieces)


def test_a_store_whose_name_is_no_text_is_served(tmp_path):
    root = tmp_path / os.fsdecode(b"m\xfcller.ome.zarr")  # Latin-1, as old archives have it
    write_store(root, head(), Grid(SHAPE, AFFINE))
    with running(root) as server:
        assert server.raw_path(0) == "0/m%FCller.ome.zarr"
        assert ask(server, f"{server.raw_path(0)}/zarr.json")[0] == 200
        assert ask(server, "0/level-9.nii")[::2] == (404, b"m\\udcfcller has no level 9\n")


def test_a_published_volume_is_shown_by_its_folder_and_by_its_metadata(tmp_path):
    store = tmp_path / "sub-01_desc-sr_T1w.ome.zarr" / "zarr.json"
    outputs = Outputs(store=store, preview=tmp_path / "p.nii.gz", sidecar=tmp_path / "p.json")
    record = {"method": {"kind": "spline", "title": "Spline"}, "degradation": "axial4", "source_key": "k"}
    publish_volume(head(), None, Grid(SHAPE, AFFINE), outputs, scale=2.0, offset=-3.0, record=record)
    with running(store, store.parent) as server:
        for number in (0, 1):
            image = nifti(server, f"{number}/level-0.nii")
            np.testing.assert_allclose(image.get_fdata(), head() * 2 - 3, rtol=1e-5, atol=1e-3)
            np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)


def published(folder):
    store = folder / "a.ome.zarr" / "zarr.json"
    outputs = Outputs(store=store, preview=folder / "p.nii.gz", sidecar=folder / "p.json")
    record = {"method": {"kind": "spline", "title": "Spline"}, "degradation": "axial4", "source_key": "k"}
    publish_volume(head(), None, Grid(SHAPE, AFFINE), outputs, scale=2.0, offset=-3.0, record=record)
    return store.parent


@pytest.mark.parametrize("key", ["0/c/0/0/0", "1/c/0/0/0"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut short", "a folder"])
def test_a_shard_that_is_lost_is_named_and_not_seen_as_empty_space(tmp_path, key, how):
    root = published(tmp_path)
    shard = root / key
    content = shard.read_bytes()
    with running(root) as server:
        shard.unlink()
        if how == "a folder":
            shard.mkdir()
        elif how != "gone":
            shard.write_bytes(b"" if how == "empty" else content[:-1])
        level = key[0]
        middle = ",".join(str(mm) for mm in server.volumes[0].describe()["middle_mm"])
        for path in (f"0/level-{level}.nii", f"0/level-{level}.nii?at={middle}", f"0/a.ome.zarr/{key}"):
            status, _, body = ask(server, path)
            assert (status, body) == (
                409,
                f"a.ome.zarr: its shard {key} is gone or cut short; make it again\n".encode(),
            )
        other = {"0": "1", "1": "0"}[level]
        assert ask(server, f"0/level-{other}.nii")[0] == 200
    with pytest.raises(ValueError, match=rf"a\.ome\.zarr: 1 of its 2 shards are gone .* space: {key}\. Make it with"):
        ViewServer([root])


def test_a_shard_that_is_lost_while_it_is_read_ends_the_answer(tmp_path, monkeypatch):
    root = published(tmp_path)
    monkeypatch.setattr(levels, "_SLAB", 16 * 70 * 33)
    _, pieces = levels.StoredVolume(root).nifti(0, (0, 0, 0), SHAPE)
    next(pieces), next(pieces)
    (root / "0/c/0/0/0").unlink()
    with pytest.raises(levels.ReplacedError, match="its shard 0/c/0/0/0 is gone"):
        next(pieces)


def test_a_store_that_is_not_finished_is_refused_with_the_way_out(tmp_path, store):
    stores.begin(tmp_path / "half.ome.zarr" / "zarr.json", "a volume")
    with pytest.raises(ValueError, match=r"half\.ome\.zarr: is not finished.*zarr\.json.*same command again"):
        ViewServer([store, tmp_path / "half.ome.zarr"])
    with pytest.raises(ValueError, match=r"none\.ome\.zarr: does not exist\. Name a folder"):
        ViewServer([tmp_path / "none.ome.zarr"])
    (tmp_path / "scan.nii.gz").write_text("x")
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: is a file, which any viewer of NIfTI may show\."):
        ViewServer([tmp_path / "scan.nii.gz"])


def test_what_headsr_did_not_write_is_named_as_what_it_is(tmp_path):
    other = tmp_path / "other.ome.zarr"
    (other / "0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"other\.ome\.zarr: holds no volume that headsr wrote or began\. Name"):
        ViewServer([other])
    for said in ({"node_type": "array"}, {"attributes": {}}, {"attributes": {"ome": {"version": "0.5"}}}):
        (other / "zarr.json").write_text(json.dumps({"zarr_format": 3, **said}))
        for place in (other, other / "zarr.json"):
            with pytest.raises(ValueError, match=r": is a Zarr v3 store, which headsr did not write\..*napari"):
                ViewServer([place])


def test_a_store_of_zarr_v2_is_named_as_one(tmp_path):
    for number, name in enumerate((".zgroup", ".zarray", ".zattrs")):
        other = tmp_path / f"{number}.ome.zarr"
        other.mkdir()
        (other / name).write_text('{"zarr_format": 2}')
        with pytest.raises(ValueError, match=rf"{number}\.ome\.zarr: is a Zarr v2 store .*headsr did not write"):
            ViewServer([other])


def test_what_makes_it_reachable_from_another_machine_is_printed(store, started):
    program = f"from headsr.view import serve; serve([{str(store)!r}])"
    process = started([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    address, _, tunnel = (process.stdout.readline().decode() for _ in range(3))
    port = re.match(r"http://127\.0\.0\.1:(\d+)/", address)[1]
    assert re.search(rf"another machine.*: ssh -N -L {port}:127\.0\.0\.1:{port} \S+@\S+\n$", tunnel)


def test_a_port_that_is_taken_is_refused_with_the_way_out(server, store):
    with pytest.raises(ValueError, match=rf"port {server.server_port}: .*Choose another"):
        ViewServer([store], port=server.server_port)


def test_ctrl_c_ends_it_cleanly(store, started):
    program = f"from headsr.view import serve; serve([{str(store)!r}])"
    process = started([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert re.match(rb"http://127\.0\.0\.1:\d+/[\w-]{22}/\n", process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=20)
    assert (process.returncode, complaints) == (0, b"")


def test_the_script_that_ships_is_the_one_whose_licence_ships():
    page = files("headsr.view").joinpath("page")
    said = page.joinpath("niivue.txt").read_text(encoding="utf-8")
    assert hashlib.sha256(page.joinpath("niivue.umd.js").read_bytes()).hexdigest() in said
    assert "NiiVue 0.69.0" in said and "BSD 2-Clause License" in said
