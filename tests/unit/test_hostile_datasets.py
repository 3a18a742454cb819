"""A dataset starts no program, and a folder that scans come from is read and nothing else. Payloads leave a mark."""

import http.server
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headsr import annex, clones
from headsr.annex import AnnexError, run_tool
from headsr.recipes import Dataset, plain, stated, tracked
from headsr.render.describe import describe_derivatives
from headsr.scans import read_scans
from headsr.sourcedata import PinReport, SourceDataError, fetch_scan, pin_datasets

UUID = "11111111-1111-1111-1111-111111111111"
SCAN = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when a program is started that a dataset chose; the programs are found on PATH."""
    programs, marked = tmp_path / "programs", tmp_path / "started"
    programs.mkdir()
    for name in ("git-annex-remote-evil", "git-remote-evil", "rsync", "bup", "tahoe", "aria2c", "yt-dlp", "payload"):
        (programs / name).write_text(f'#!/bin/sh\necho "$0 $@" >> "{marked}"\nexit 1\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return marked


def ask_for(dataset: Path, *remotes: str) -> None:
    """Have a dataset ask for remotes, as lines of git-annex's log of them."""
    commit_to_annex(dataset, "remote.log", "".join(f"{one} timestamp=1598041450s\n" for one in remotes))


def commit_to_annex(dataset: Path, path: str, text: str) -> None:
    """Put a file into the git-annex branch of a dataset, as its owner can."""

    def git(*words: str, stdin: bytes = b"") -> str:
        index = ["env", f"GIT_INDEX_FILE={dataset}/../index", "git", "-C", str(dataset), *words]
        return run_tool(index, stdin=stdin).stdout.decode().strip()

    git("read-tree", "git-annex")
    blob = git("hash-object", "-w", "--stdin", stdin=text.encode())
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    commit = git("commit-tree", "-p", "git-annex", "-m", "update", git("write-tree"))
    git("update-ref", "refs/heads/git-annex", commit)


def pin(dataset: Path | str, folder: Path) -> PinReport:
    recipe = Dataset(str(dataset), "v1", "CC0", "nobody")
    return pin_datasets({"tiny": recipe}, clones=folder / "clones", table=folder / "scans.tsv")


def fetch(folder: Path) -> bytes:
    scan = next(scan for scan in read_scans(folder / "scans.tsv") if scan.path == SCAN)
    fetch_scan(folder / "got.nii.gz", clone=folder / "clones/tiny", name=scan.name, key=scan.key)
    return (folder / "got.nii.gz").read_bytes()


def key_of(dataset: Path) -> str:
    return run_tool(["git", "-C", dataset, "annex", "lookupkey", SCAN]).stdout.decode().strip()


def drop(dataset: Path) -> None:
    run_tool(["git", "-C", dataset, "annex", "drop", "--force", f"--key={key_of(dataset)}"])


@pytest.mark.parametrize(
    ("remote", "why"),
    [
        ("type=external externaltype=evil encryption=none", "it would start the program git-annex-remote-evil"),
        ("type=git location=evil::/nosuch", "evil::/nosuch is no address of http, https, ssh or a folder"),
        ("type=git location=ext::sh&32;-c&32;payload", "ext::sh -c payload is no address"),
        ("type=git location=ssh://-oProxyCommand=payload/x", "is no address"),
        ("type=rsync rsyncurl=-epayload&32;:/x encryption=none", "remotes of type rsync are not among"),
        ("type=bup buprepo=payload:/x encryption=none", "remotes of type bup are not among"),
        ("type=directory directory=/tmp encryption=none", "remotes of type directory are not among"),
        ("type=S3 bucket=x encryption=pubkey", "it is encrypted"),
        ("type=git location=http://127.0.0.1:9/&55296;", "its settings hold characters that no text has"),
        ("type=git location=http://127.0.0.1:9/&0;x", "its settings hold characters that no text has"),
        ("type=S3 bucket=&10;[core]fsmonitor=payload encryption=none", "its settings hold characters that no text has"),
    ],
)
def test_a_remote_that_needs_a_program_is_left_off_and_named(
    remote: str, why: str, tiny_dataset: Path, mark: Path, tmp_path: Path
) -> None:
    ask_for(tiny_dataset, f"{UUID} autoenable=true name=wanted {remote}")
    drop(tiny_dataset)
    commit_to_annex(tiny_dataset, f"{object_folder(tiny_dataset)}.log", f"1598041450s 1 {UUID}\n")
    report = pin(tiny_dataset, tmp_path)
    (note,) = [note for note in report.notes if "wanted" in note]
    assert note.startswith("tiny: the dataset's remote wanted was left off: ") and why in note
    assert f"annex enableremote {UUID}" in note and note in report.text()
    with pytest.raises(SourceDataError, match=r"tiny lacks it; not available"):
        fetch(tmp_path)
    assert not mark.exists()


def object_folder(dataset: Path) -> str:
    """The folder and the name of a scan's key in the git-annex branch."""
    words = ["git", "-C", dataset, "annex", "examinekey", key_of(dataset), "--format=${hashdirlower}${key}"]
    return run_tool(words).stdout.decode()


@pytest.mark.parametrize("name", ["origin", "-x", "a=b", "a\x1b[31mb", "web"])
def test_a_remote_with_a_name_that_is_none_is_left_off(
    name: str, tiny_dataset: Path, mark: Path, tmp_path: Path
) -> None:
    ask_for(tiny_dataset, f"{UUID} autoenable=true name={name} type=httpalso url=http://x encryption=none")
    (note,) = [note for note in pin(tiny_dataset, tmp_path).notes if "left off" in note]
    assert "it has no plain name" in note and "\x1b" not in note
    assert fetch(tmp_path) == (tiny_dataset / SCAN).read_bytes()


@pytest.mark.parametrize(
    "address", ["magnet:?xt=urn:btih:abcd", "http://localhost:9/x.torrent", "yt:http://localhost:9"]
)
def test_contents_said_to_be_torrents_or_videos_start_no_downloader(
    address: str, tiny_dataset: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headsr.annex.sleep", lambda seconds: None)
    run_tool(["git", "-C", tiny_dataset, "annex", "registerurl", key_of(tiny_dataset), address])
    pin(tiny_dataset, tmp_path)
    drop(tiny_dataset)
    with pytest.raises(SourceDataError):
        fetch(tmp_path)
    assert not mark.exists()


def test_a_folder_is_read_and_nothing_in_it_is_run_or_written(tiny_dataset: Path, mark: Path, tmp_path: Path) -> None:
    for setting in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook", "core.alternateRefsCommand"):
        run_tool(["git", "-C", tiny_dataset, "config", setting, "payload"])
    for command in ("freezecontent", "thawcontent", "post-update", "pre-init", "pre-commit"):
        run_tool(["git", "-C", tiny_dataset, "config", f"annex.{command}-command", "payload"])
    run_tool(["git", "-C", tiny_dataset, "config", "--unset", "annex.uuid"])  # git-annex would prepare it anew
    for hook in ("freezecontent-annex", "thawcontent-annex", "post-update-annex", "reference-transaction"):
        (tiny_dataset / ".git/hooks" / hook).write_text("#!/bin/sh\npayload\n")
        (tiny_dataset / ".git/hooks" / hook).chmod(0o755)
    before = snapshot(tiny_dataset)
    pin(tiny_dataset, tmp_path)
    pin(tiny_dataset, tmp_path)
    assert fetch(tmp_path) == (tiny_dataset / SCAN).read_bytes()
    assert snapshot(tiny_dataset) == before
    assert not mark.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_refused_with_the_way_to_allow_it(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where nobody allowed any
    subprocess.run(["chown", "-R", "1234:1234", tiny_dataset], check=True)
    way_out = f"git config --global --add safe.directory {tiny_dataset}"
    with pytest.raises(SourceDataError, match=f"another user.*dubious ownership.*{re.escape(way_out)}"):
        pin(tiny_dataset, tmp_path)

    subprocess.run(["chown", "-R", f"{os.geteuid()}:{os.getegid()}", tiny_dataset], check=True)
    pin(tiny_dataset, tmp_path)
    subprocess.run(["chown", "-R", "1234:1234", tmp_path / "clones"], check=True)
    way_out = f"git config --global --add safe.directory {tmp_path}/clones/tiny"
    with pytest.raises(SourceDataError, match=f"dubious ownership.*{re.escape(way_out)}"):
        pin(tiny_dataset, tmp_path)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Mode, size, time and content of all that a folder holds."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


def test_a_folder_whose_objects_are_elsewhere_asks_nobody_for_them(
    tiny_dataset: Path, mark: Path, tmp_path: Path
) -> None:
    """A partial clone gets what it lacks by a program that its configuration names, when somebody else reads it."""
    for setting, value in (
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "lazy"),
        ("remote.lazy.url", "ext::payload"),
        ("remote.lazy.promisor", "true"),
        ("protocol.ext.allow", "always"),
    ):
        run_tool(["git", "-C", tiny_dataset, "config", setting, value])
    blob = run_tool(["git", "-C", tiny_dataset, "rev-parse", "v1:T1w.json"]).stdout.decode().strip()
    (tiny_dataset / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceDataError, match="could not be cloned"):
        pin(tiny_dataset, tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("url", ["evil::/nosuch", "ext::payload", "ria+http://localhost:9#~x", "git://localhost:9/x"])
def test_an_address_that_needs_a_program_is_refused(url: str, mark: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceDataError, match=r"reached by a program of its own.*Clone it yourself"):
        pin(url, tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=payload/x", "-oProxyCommand=payload:x"])
def test_a_host_is_no_option(url: str, mark: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceDataError):
        pin(url, tmp_path)
    assert not mark.exists()


def test_a_clone_in_which_a_dataset_enabled_remotes_is_not_used_before_it_was_pinned_again(
    tiny_dataset: Path, mark: Path, tmp_path: Path
) -> None:
    ask_for(
        tiny_dataset,
        f"{UUID} autoenable=true name=wanted type=external externaltype=evil encryption=none",
        f"{UUID[:-1]}2 autoenable=true name=also type=httpalso url=http://localhost:9 encryption=none",
    )
    pin(tiny_dataset, tmp_path)
    clone = tmp_path / "clones/tiny"
    for setting, value in (("annex-externaltype", "evil"), ("annex-uuid", UUID), ("annex-verified", "automatic")):
        run_tool(["git", "-C", clone, "config", f"remote.wanted.{setting}", value])
    run_tool(["git", "-C", clone, "config", "--unset", "headsr.remotes"])  # as before headsr chose
    drop(tiny_dataset)
    with pytest.raises(SourceDataError, match=r"made by an earlier headsr. Pin the dataset again with: headsr pin"):
        fetch(tmp_path)
    assert any("wanted was left off" in note for note in pin(tiny_dataset, tmp_path).notes)
    with pytest.raises(SourceDataError, match=r"not available|Unable to access these remotes: also"):
        fetch(tmp_path)
    assert not mark.exists()
    assert clones.config(clone, "remote.also.annex-httpalso") == "true"


@pytest.fixture
def server(tiny_dataset: Path) -> Iterator[str]:
    """The tiny dataset on a web server."""
    run_tool(["git", "-C", tiny_dataset, "update-server-info"])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(tiny_dataset))) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


@pytest.mark.parametrize("remote", ["type=httpalso url={}/annex/objects", "type=git location={}", "origin"])
def test_remotes_that_need_no_program_are_enabled(
    remote: str, server: str, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "annex.security.allowed-ip-addresses"), ("VALUE_0", "127.0.0.1")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    content = (tiny_dataset / SCAN).read_bytes()
    if remote == "origin":
        pin(server, tmp_path)  # and /.git is found
    else:
        own = run_tool(["git", "-C", tiny_dataset, "config", "annex.uuid"]).stdout.decode().strip()
        same = f"sameas-uuid={own} sameas-name=more" if "httpalso" in remote else "name=more"
        ask_for(tiny_dataset, f"{UUID} autoenable=true {same} encryption=none {remote.format(f'{server}/.git')}")
        origin = tmp_path / "origin"  # has none of the content
        run_tool(["git", "clone", "-q", "--mirror", tiny_dataset, origin])
        assert not any("left off" in note for note in pin(origin, tmp_path).notes)
    assert fetch(tmp_path) == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_pin_that_is_told_to_end_leaves_no_program_and_no_half_clone(
    number: signal.Signals, tmp_path: Path, started: Callable[..., subprocess.Popen]
) -> None:
    program = (
        "import signal, sys; from headsr.recipes import Dataset; from headsr.sourcedata import pin_datasets\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup, which is for good
        "pin_datasets({'tiny': Dataset(sys.argv[1], 'v1', '', '')}, clones='clones', table='scans.tsv')"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:  # which never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/heads.git"
        pinning = started([sys.executable, "-c", program, url], cwd=tmp_path, stderr=subprocess.DEVNULL)
        server.settimeout(60)
        connection, _ = server.accept()
        assert (tmp_path / "clones/.tiny.partial").is_dir()
        pinning.send_signal(number)
        assert pinning.wait(30) != 0
        connection.settimeout(30)
        while connection.recv(4096):  # ends when git's own child is gone
            pass
        connection.close()
    assert os.listdir(tmp_path / "clones") == []


def test_a_remote_in_a_folder_is_read_as_data_too(tiny_dataset: Path, mark: Path, tmp_path: Path) -> None:
    ask_for(tiny_dataset, f"{UUID} autoenable=true name=more type=git location={tiny_dataset}")
    origin = tmp_path / "origin"
    run_tool(["git", "clone", "-q", "--mirror", tiny_dataset, origin])
    run_tool(["git", "-C", tiny_dataset, "config", "core.fsmonitor", "payload"])
    pin(origin, tmp_path)
    before = snapshot(tiny_dataset)
    assert fetch(tmp_path) == (tiny_dataset / SCAN).read_bytes()
    assert snapshot(tiny_dataset) == before and not mark.exists()


def test_git_annex_is_not_asked_in_a_clone_that_it_does_not_know(tmp_path: Path, tiny_dataset: Path) -> None:
    """It would prepare the clone by itself, with all that the dataset asks for."""
    run_tool(["git", "init", "-q", tmp_path / "clone"])
    run_tool(["git", "-C", tmp_path / "clone", "config", "headsr.remotes", "chosen"])
    with pytest.raises(SourceDataError, match=r"is not git-annex's yet. Pin the dataset again") as raised:
        fetch_scan(tmp_path / "got.nii.gz", clone=tmp_path / "clone", name="x", key="MD5E-s1--aa.nii.gz")
    assert isinstance(raised.value.__cause__, AnnexError)


def with_scan(dataset: Path, key: str, person: str = "sub-09") -> None:
    """Commit a scan of a key that nobody made, as v1."""
    link = f"../../.git/annex/objects/aa/bb/{key}/{key}".encode()
    blob = run_tool(["git", "-C", dataset, "hash-object", "-w", "--stdin"], stdin=link).stdout.decode().strip()
    path = f"{person}/anat/{person}_T1w.nii.gz"
    run_tool(["git", "-C", dataset, "update-index", "--add", "--cacheinfo", f"120000,{blob},{path}"])
    run_tool(["git", "-C", dataset, "commit", "-qm", person])
    run_tool(["git", "-C", dataset, "tag", "-f", "v1"])


@pytest.mark.parametrize("key", ["WORM-s2023-m1700000000--sub-09_T1w.nii.gz", "URL-s2023--http&c%%example.org%x"])
def test_a_key_without_a_hash_is_named_when_it_is_pinned_and_when_it_is_fetched(
    key: str, tiny_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_scan(tiny_dataset, key)
    (note,) = [note for note in pin(tiny_dataset, tmp_path).notes if "hold no hash" in note]
    assert note.startswith(f"tiny: the keys of 1 files, such as tiny/sub-09_T1w, are of {key.partition('-')[0]} and")
    folder = next(path.parent for path in object_paths(tiny_dataset, key))
    folder.mkdir(parents=True)
    (folder / folder.name).write_bytes((tiny_dataset / SCAN).read_bytes())
    scan = next(scan for scan in read_scans(tmp_path / "scans.tsv") if scan.subject == "sub-09")
    fetch_scan(tmp_path / "got.nii.gz", clone=tmp_path / "clones/tiny", name=scan.name, key=scan.key)
    assert "is a key without a hash: what was fetched for it was checked by its size alone" in caplog.text


def object_paths(dataset: Path, key: str) -> Iterator[Path]:
    return annex._object_paths(dataset / ".git", annex._annexed("x", key.encode()).key)


def test_a_hash_that_python_does_not_know_is_checked_by_git_annex(tiny_dataset: Path, tmp_path: Path) -> None:
    content = tmp_path / "sub-09_T1w.nii.gz"
    content.write_bytes((tiny_dataset / SCAN).read_bytes())
    words = ["git", "-C", tiny_dataset, "annex", "calckey", "--backend=BLAKE3_256E", content]
    key = run_tool(words).stdout.decode().strip()
    with_scan(tiny_dataset, key)
    folder = next(path.parent for path in object_paths(tiny_dataset, key))
    folder.mkdir(parents=True)
    stored = folder / folder.name
    stored.write_bytes(content.read_bytes())
    assert not any("hash" in note for note in pin(tiny_dataset, tmp_path).notes)
    scan = next(scan for scan in read_scans(tmp_path / "scans.tsv") if scan.subject == "sub-09")
    ask = {"clone": tmp_path / "clones/tiny", "name": scan.name, "key": scan.key}
    fetch_scan(tmp_path / "got.nii.gz", **ask)
    changed = content.read_bytes()
    stored.write_bytes(changed[:-20] + bytes([changed[-20] ^ 1]) + changed[-19:])
    with pytest.raises(SourceDataError, match="is not the pinned content"):
        fetch_scan(tmp_path / "again.nii.gz", **ask)


def test_a_key_that_only_a_program_of_the_dataset_can_check_is_left_out(
    tiny_dataset: Path, mark: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = mark.parent / "programs/git-annex-backend-XEVIL"
    program.write_text((mark.parent / "programs/payload").read_text())
    program.chmod(0o755)
    with_scan(tiny_dataset, "XEVIL-s5--aa.nii.gz")
    assert "tiny/sub-09_T1w" not in pin(tiny_dataset, tmp_path).added
    assert "sub-09_T1w.nii.gz: XEVIL-s5--aa.nii.gz could only be checked by a program" in caplog.text
    with pytest.raises(SourceDataError, match="could only be checked by a program that the dataset names"):
        fetch_scan(tmp_path / "x.nii.gz", clone=tmp_path / "clones/tiny", name="x", key="XEVIL-s5--aa.nii.gz")
    assert not mark.exists()


def test_no_message_and_no_table_has_what_a_terminal_would_obey(
    tiny_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, target in (("sub-08_T1w.nii.gz", "\x1b]0;title\x07"), ("\x1b[31msub-07_label-lesion_mask.nii.gz", "x")):
        (tiny_dataset / "sub-01/anat" / name).symlink_to(target)
    folder = tiny_dataset / "sub-08/anat"
    folder.mkdir(parents=True)
    (folder / "sub-08_T1w.nii.gz").symlink_to("\x1b]0;title\x07")
    run_tool(["git", "-C", tiny_dataset, "add", "."])
    run_tool(["git", "-C", tiny_dataset, "commit", "-qm", "escapes"])
    with_scan(tiny_dataset, "MD5E-s5--\x1b[31maa.nii.gz")
    text = pin(tiny_dataset, tmp_path).text()
    assert r"sub-08_T1w.nii.gz is a link to \x1b]0;title\x07" in caplog.text
    assert r"MD5E-s5--\x1b[31maa" in caplog.text.replace(r"\\", "\\")
    for said in (text, caplog.text, (tmp_path / "scans.tsv").read_text()):
        assert "\x1b" not in said and "\x07" not in said


@pytest.mark.parametrize("url", ["http://me:secret@localhost:9/heads", "https://secret@localhost:9/x?token=secret"])
def test_a_password_in_a_url_is_in_no_message_and_no_record(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceDataError, match="localhost:9") as raised:
        pin(url, tmp_path)
    assert "secret" not in str(raised.value)
    recipe = Dataset(url, "v1", "CC0", "nobody")
    for told in (plain(recipe), stated(recipe), tracked(recipe)):
        assert "secret" not in str(told) and "localhost:9" in told["url"]
    describe_derivatives(
        tmp_path / "dataset_description.json", dataset=recipe, name="tiny", method="spline", degradation="axial_x4"
    )
    assert "secret" not in (tmp_path / "dataset_description.json").read_text()
