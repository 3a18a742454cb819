"""Scans fetched through what is slow, broken, refused, wrong or full: real git-annex, a web server here, real disks."""

import gzip
import http.server
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headsr import annex
from headsr.annex import read_commit, run_tool
from headsr.sourcedata import SourceDataError, fetch_scan

Started = Callable[..., subprocess.Popen]
SCAN = "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz"
NAME = "tiny/sub-02_ses-a_run-1_T1w"
NOT_PINNED = r"not the pinned content.*Try again.*maintainers"


class Web(http.server.ThreadingHTTPServer):
    """A dataset as a web server shows it; ``answer`` decides what becomes of a request for content."""

    def __init__(self, dataset: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=os.fspath(dataset)))
        self.url = f"http://127.0.0.1:{self.server_port}/.git"
        self.answer: Callable[[Handler, bytes], None] = send
        self.asked = threading.Event()
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if "/annex/objects/" not in self.path:
            return super().do_GET()
        if not path.is_file():  # git-annex looks in two places: who refuses one refuses both
            refuses = getattr(self.server.answer, "func", None) is refuse
            return self.server.answer(self, b"") if refuses else super().do_GET()
        self.server.asked.set()
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.server.answer(self, path.read_bytes())
        finally:
            with self.server.lock:
                self.server.now -= 1


def send(request: Handler, content: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def send_slowly(request: Handler, content: bytes) -> None:
    time.sleep(1)
    send(request, content)


def refuse(status: int, request: Handler, content: bytes) -> None:
    request.send_response(status)
    if status == 401:
        request.send_header("WWW-Authenticate", 'Basic realm="heads"')
    request.send_header("Content-Length", "0")
    request.end_headers()


def send_changed(change: Callable[[bytes], bytes], request: Handler, content: bytes) -> None:
    send(request, change(content))


def flip_a_bit(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


def begin(request: Handler, content: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content[: len(content) // 2])
    request.close_connection = True


def begin_and_stall(request: Handler, content: bytes) -> None:
    begin(request, content)
    request.server.over.wait(60)


def never_answer(request: Handler, content: bytes) -> None:
    request.server.over.wait(60)
    request.close_connection = True


@pytest.fixture
def web(tiny_dataset: Path, tiny_clone: Path) -> Iterator[Web]:
    """The tiny dataset on a loopback web server, which is the origin of the tiny clone."""
    run_tool(["git", "-C", tiny_dataset, "update-server-info"])
    with Web(tiny_dataset) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        run_tool(["git", "-C", tiny_clone, "remote", "set-url", "origin", server.url])
        run_tool(["git", "-C", tiny_clone, "config", "--unset", "remote.origin.annex-ignore"])
        run_tool(["git", "-C", tiny_clone, "config", "annex.security.allowed-ip-addresses", "127.0.0.1"])
        run_tool(["git", "-C", tiny_clone, "annex", "enableremote", "origin"])
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    pauses: list[float] = []
    monkeypatch.setattr(annex, "sleep", pauses.append)
    return pauses


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), open(disk / "filling", "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def key_of(clone: Path, wanted: str = SCAN) -> str:
    return read_commit(clone, "v1", lambda path: path == wanted)[wanted].key


def publish(dataset: Path, content: bytes) -> str:
    """Put content into a dataset, as what its key says; returns the key."""
    path = dataset.parent / "published.nii.gz"
    path.write_bytes(content)
    key = run_tool(["git", "-C", dataset, "annex", "calckey", "--backend=SHA256E", path]).stdout.decode().strip()
    run_tool(["git", "-C", dataset, "annex", "setkey", key, path])
    run_tool(["git", "-C", dataset, "annex", "merge"])
    run_tool(["git", "-C", dataset, "update-server-info"])
    return key


def contents(clone: Path) -> set[tuple[str, int]]:
    """The files of a clone that are, or may become, content."""
    folders = (clone / ".git/annex" / name for name in ("objects", "tmp", "othertmp", "bad"))
    return {(str(path), path.stat().st_size) for folder in folders for path in folder.rglob("*") if path.is_file()}


def failure(clone: Path, key: str, folder: Path) -> str:
    """Fetch a scan, which must fail: named, with a way out, without a trace. Returns what was said."""
    before = contents(clone)
    there = set(folder.iterdir())
    with pytest.raises(SourceDataError) as raised:
        fetch_scan(folder / "scan.nii.gz", clone=clone, name=NAME, key=key)
    assert set(folder.iterdir()) == there
    assert contents(clone) == before
    said = str(raised.value)
    assert said.startswith(f"{NAME}: the content of {key} could not be fetched: ")
    assert "\n" not in said
    return said


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (partial(refuse, 401), r"You have no access\. Ask the owner for it, or log in where you can be asked"),
        (partial(refuse, 403), r"Forbidden.*You have no access\. Ask the owner"),
        (partial(refuse, 404), r"Not Found.*Check the network and that the remote still exists.*annex whereis"),
        (partial(refuse, 503), r"Service Unavailable.*try again"),
        (partial(send_changed, flip_a_bit), NOT_PINNED),
        (partial(send_changed, lambda content: content[:1000]), NOT_PINNED),
        (partial(send_changed, lambda content: content + content), NOT_PINNED),
        (partial(send_changed, lambda content: b"<html>Log in</html>"), NOT_PINNED),
        (begin, r"only 1\d\d\d of 2023 bytes came.*Check the network"),
    ],
    ids=["401", "403", "404", "503", "same size", "shorter", "longer", "login page", "broken line"],
)
def test_what_a_server_may_do(answer, says: str, web: Web, tiny_clone: Path, results: Path, waited: list) -> None:
    web.answer = answer
    assert re.search(says, failure(tiny_clone, key_of(tiny_clone), results))
    assert waited == [2, 10, 30]


@pytest.mark.parametrize("answer", [never_answer, begin_and_stall])
def test_a_server_that_falls_silent(
    answer, web: Web, tiny_clone: Path, results: Path, waited: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annex, "_SILENCE_S", 0.5)
    web.answer = answer
    said = failure(tiny_clone, key_of(tiny_clone), results)
    assert "the remote sent nothing for 0.5 s. Check the network" in said
    assert waited == [2, 10, 30]


def test_a_slow_line_is_not_silent(
    web: Web, tiny_dataset: Path, tiny_clone: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gzip.compress(random.Random(0).randbytes(2_000_000), 1)
    key = publish(tiny_dataset, content)
    run_tool(["git", "-C", tiny_clone, "fetch", "-q", "origin"])

    def trickle(request: Handler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for at in range(0, len(content), 250_000):
            time.sleep(0.5)
            request.wfile.write(content[at : at + 250_000])

    web.answer = trickle
    monkeypatch.setattr(annex, "_SILENCE_S", 1.5)
    begun = time.monotonic()
    annex.get_content(tiny_clone, key, results / "scan.nii.gz", waits_s=())
    assert time.monotonic() - begun > 2 * 1.5  # a mere limit would have ended it
    assert (results / "scan.nii.gz").read_bytes() == content


def test_a_broken_line_is_mended_where_it_broke(web: Web, tiny_clone: Path, results: Path, waited: list) -> None:
    ranges = []

    def break_once(request: Handler, content: bytes) -> None:
        ranges.append(request.headers["Range"])
        if ranges[-1] is None:
            return begin(request, content)
        first = int(ranges[-1].removeprefix("bytes=").removesuffix("-"))
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        request.wfile.write(content[first:])

    web.answer = break_once
    fetch_scan(results / "scan.nii.gz", clone=tiny_clone, name=NAME, key=key_of(tiny_clone))
    assert ranges == [None, "bytes=1011-"]
    assert contents(tiny_clone) == set()


def test_wrong_bytes_are_not_built_upon_when_trying_again(
    web: Web, tiny_dataset: Path, tiny_clone: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.answer = partial(send_changed, lambda content: content[:500] + bytes(5000))
    monkeypatch.setattr(annex, "sleep", lambda seconds: setattr(web, "answer", send))
    annex.get_content(tiny_clone, key_of(tiny_clone), results / "scan.nii.gz", waits_s=(1,))
    assert (results / "scan.nii.gz").read_bytes() == (tiny_dataset / SCAN).read_bytes()


def test_content_that_was_there_stays(web: Web, tiny_clone: Path, results: Path) -> None:
    run_tool(["git", "-C", tiny_clone, "annex", "get", f"--key={key_of(tiny_clone)}"])
    before = contents(tiny_clone)
    annex.get_content(tiny_clone, key_of(tiny_clone), results / "scan.nii.gz")
    assert contents(tiny_clone) == before != set()


def test_a_damaged_copy_in_the_clone_is_replaced(web: Web, tiny_dataset: Path, tiny_clone: Path, results: Path) -> None:
    run_tool(["git", "-C", tiny_clone, "annex", "get", f"--key={key_of(tiny_clone)}"])
    (stored,) = tiny_clone.glob(f".git/annex/objects/*/*/*/{key_of(tiny_clone)}")
    stored.parent.chmod(0o755)
    stored.chmod(0o644)
    stored.write_bytes(flip_a_bit(stored.read_bytes()))
    annex.get_content(tiny_clone, key_of(tiny_clone), results / "scan.nii.gz", waits_s=(0,))
    assert (results / "scan.nii.gz").read_bytes() == (tiny_dataset / SCAN).read_bytes()


def test_no_space_in_the_clone(web: Web, tiny_clone: Path, results: Path) -> None:
    run_tool(["git", "-C", tiny_clone, "config", "annex.diskreserve", "1000000TB"])
    with pytest.raises(annex.AnnexError, match=r"not enough free space.*Free space on the disk") as raised:
        annex.get_content(tiny_clone, key_of(tiny_clone), results / "scan.nii.gz", waits_s=(1000,))
    assert raised.value.lasting


def test_no_network(web: Web, tiny_clone: Path, results: Path, waited: list) -> None:
    run_tool(["git", "-C", tiny_clone, "remote", "set-url", "origin", "http://127.0.0.1:9/.git"])
    said = failure(tiny_clone, key_of(tiny_clone), results)
    assert re.search(r"Connection refused.*Check the network and that the remote still exists, then try again", said)
    assert waited == [2, 10, 30]


def test_a_key_that_no_remote_has(tiny_dataset: Path, tiny_clone: Path, results: Path, waited: list) -> None:
    key = key_of(tiny_clone)
    run_tool(["git", "-C", tiny_dataset, "annex", "drop", "--force", f"--key={key}"])
    assert re.search(r"not available.*No remote .* has it.*enable or add", failure(tiny_clone, key, results))
    assert waited == [2]  # once, for the clone's record of who has what may be old


def test_a_scan_that_was_published_damaged(tiny_dataset: Path, tiny_clone: Path, results: Path, waited: list) -> None:
    key = publish(tiny_dataset, gzip.compress(bytes(5000))[:-9])
    run_tool(["git", "-C", tiny_clone, "fetch", "-q", "origin"])
    said = failure(tiny_clone, key, results)
    assert re.search(r"damaged gzip file.*published so.*tell the dataset's maintainers.*unused", said)
    assert waited == []  # the same would come again


def test_the_disk_of_the_results_is_full(tiny_clone: Path, small_disk: Path, waited: list) -> None:
    fill(small_disk)
    said = failure(tiny_clone, key_of(tiny_clone), small_disk)
    assert f"the disk of {small_disk} is full. Free space and try again" in said
    assert waited == []
    (small_disk / "filling").unlink()
    fetch_scan(small_disk / "scan.nii.gz", clone=tiny_clone, name=NAME, key=key_of(tiny_clone))


def test_the_disk_of_the_clone_is_full(
    web: Web, tiny_clone: Path, small_disk: Path, results: Path, waited: list
) -> None:
    clone = small_disk / "clone"
    subprocess.run(["cp", "-a", tiny_clone, clone], check=True)
    run_tool(["git", "-C", clone, "config", "annex.diskreserve", "0"])
    fill(small_disk)
    said = failure(clone, key_of(clone), results)
    assert f"Free space on the disk of {clone} and try again" in said
    assert waited == []
    (small_disk / "filling").unlink()
    fetch_scan(results / "scan.nii.gz", clone=clone, name=NAME, key=key_of(clone))


def test_the_disk_of_the_clone_fills_up(
    web: Web, tiny_dataset: Path, tiny_clone: Path, small_disk: Path, results: Path, waited: list
) -> None:
    """A key that does not tell its size: git-annex cannot know beforehand that there is no room."""
    clone = small_disk / "clone"
    subprocess.run(["cp", "-a", tiny_clone, clone], check=True)
    run_tool(["git", "-C", clone, "config", "annex.diskreserve", "0"])
    web.answer = partial(send_changed, lambda content: random.Random(0).randbytes(3_000_000))
    (stored,) = tiny_dataset.glob(f".git/annex/objects/*/*/*/{key_of(clone)}")
    url = f"{web.url}/{stored.relative_to(tiny_dataset / '.git')}"
    run_tool(["git", "-C", clone, "annex", "registerurl", f"URL--{url}", url])
    said = failure(clone, f"URL--{url}", results)
    assert "No space left on device" in said and f"Free space on the disk of {clone} and try again" in said
    assert waited == []


FETCH = (
    "import sys; from headsr.annex import get_content\n"
    "get_content(sys.argv[1], sys.argv[2], sys.argv[3], at_once=int(sys.argv[4]), waits_s=())"
)


def start_fetching(started: Started, clone: Path, key: str, output: Path, *, at_once: int) -> subprocess.Popen[bytes]:
    return started([sys.executable, "-c", FETCH, clone, key, output, str(at_once)])


def test_no_more_than_the_bound_at_once(
    web: Web, tiny_dataset: Path, tiny_clone: Path, results: Path, started: Started
) -> None:
    keys = [publish(tiny_dataset, gzip.compress(b"scan %d" % i)) for i in range(6)]
    run_tool(["git", "-C", tiny_clone, "fetch", "-q", "origin"])
    web.answer = send_slowly
    jobs = [start_fetching(started, tiny_clone, key, results / f"{i}.nii.gz", at_once=2) for i, key in enumerate(keys)]
    assert [job.wait(120) for job in jobs] == [0] * 6
    assert web.most == 2
    assert sorted(gzip.decompress(path.read_bytes()) for path in results.iterdir()) == [
        b"scan %d" % i for i in range(6)
    ]
    assert contents(tiny_clone) == set()


def test_a_job_that_was_killed_frees_its_slot(web: Web, tiny_clone: Path, results: Path, started: Started) -> None:
    web.answer = never_answer
    killed = start_fetching(started, tiny_clone, key_of(tiny_clone), results / "killed.nii.gz", at_once=1)
    assert web.asked.wait(60)
    web.answer = send
    other = key_of(tiny_clone, "sub-01/anat/sub-01_T1w.nii.gz")
    waiting = start_fetching(started, tiny_clone, other, results / "other.nii.gz", at_once=1)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(4)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert waiting.wait(60) == 0
    annex.verify_content(results / "other.nii.gz", other)


def test_a_file_system_without_locks(tiny_clone: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_lock(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(annex.fcntl, "lockf", refuse_to_lock)
    fetch_scan(results / "scan.nii.gz", clone=tiny_clone, name=NAME, key=key_of(tiny_clone), at_once=1)
    assert (results / "scan.nii.gz").exists()
