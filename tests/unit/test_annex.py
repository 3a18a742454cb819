import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headsr import annex
from headsr.annex import AnnexError, DamagedError, get_content, get_text, read_commit, run_tool, verify_content

ZLIB_FREE = b"12345"


def list_images(repository: Path, commit: str) -> list[tuple[str, str, int]]:
    """Path, key and bytes of every scan of a commit, in the order of the paths."""
    files = read_commit(repository, commit, lambda path: "/anat/" in path and path.endswith(".nii.gz"))
    return sorted((file.path, file.key, file.bytes) for file in files.values())


def keys_of(repository: Path, commit: str = "v1") -> dict[str, str]:
    return {path: key for path, key, _ in list_images(repository, commit)}


def object_of(dataset: Path, key: str) -> Path:
    """The content of a key inside a dataset, made writable."""
    (found,) = (dataset / ".git/annex/objects").glob(f"*/*/{key}/{key}")
    found.parent.chmod(0o755)
    found.chmod(0o644)
    return found


def sizes(repository: Path) -> tuple[int, int]:
    """Bytes of content and of partial transfers in a repository."""
    folders = (repository / ".git/annex" / name for name in ("objects", "tmp"))
    return tuple(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders)


def test_lists_locked_unlocked_and_plain_files_without_content(tiny_clone: Path, pristine_dataset: Path) -> None:
    images = list_images(tiny_clone, "v1")
    assert [path for path, _, _ in images] == sorted(
        [
            "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
            "sub-01/anat/sub-01_T1w.nii.gz",
            "sub-01/anat/sub-01_T2w.nii.gz",
            "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz",
            "sub-03/anat/sub-03_T1w.nii.gz",
            "sub-04/anat/sub-04_T1w.nii.gz",
        ]
    )
    for path, key, size in images:
        content = (pristine_dataset / path).read_bytes()
        assert size == len(content)
        if path.startswith("sub-03"):
            blob = hashlib.sha1(b"blob %d\0" % size + content).hexdigest()
            assert key == f"GIT-s{size}--{blob}"
        else:
            assert key == f"SHA256E-s{size}--{hashlib.sha256(content).hexdigest()}.nii.gz"
    assert sizes(tiny_clone) == (0, 0)


def test_the_key_is_the_same_locked_and_unlocked(tiny_dataset: Path) -> None:
    before = keys_of(tiny_dataset)
    path = "sub-01/anat/sub-01_T2w.nii.gz"
    link = f"../../.git/annex/objects/aa/bb/{before[path]}/{before[path]}".encode()
    blob = run_tool(["git", "-C", tiny_dataset, "hash-object", "-w", "--stdin"], stdin=link).stdout.decode().strip()
    run_tool(["git", "-C", tiny_dataset, "update-index", "--cacheinfo", f"120000,{blob},{path}"])
    run_tool(["git", "-C", tiny_dataset, "commit", "-qm", "lock"])
    modes = run_tool(["git", "-C", tiny_dataset, "ls-tree", "HEAD", path]).stdout
    assert modes.startswith(b"120000")
    assert keys_of(tiny_dataset, "HEAD") == before


def test_lists_an_older_commit(tiny_dataset: Path) -> None:
    old = list_images(tiny_dataset, "v1")
    run_tool(["git", "-C", tiny_dataset, "rm", "-rq", "sub-04"])
    run_tool(["git", "-C", tiny_dataset, "commit", "-qm", "without sub-04"])
    assert list_images(tiny_dataset, "v1") == old
    assert len(list_images(tiny_dataset, "HEAD")) == len(old) - 1


def test_odd_names_links_and_keys(tmp_path: Path) -> None:
    run_tool(["git", "init", "-q", tmp_path])
    folder = tmp_path / "sub-ä b\t\n" / "anat"
    folder.mkdir(parents=True)
    url_key = "URL--http&c%%example.org%a&ab.nii.gz"
    (folder / "one.nii.gz").symlink_to(f"../../.git/annex/objects/aa/bb/{url_key}/{url_key}")
    (folder / "elsewhere.nii.gz").symlink_to("../other/anat/x.nii.gz")
    (folder / "pointer.nii.gz").write_text("/annex/objects/MD5E-s7--0123.nii.gz\n")
    run_tool(["git", "-C", tmp_path, "add", "."])
    run_tool(["git", "-C", tmp_path, "commit", "-qm", "odd"])
    assert list_images(tmp_path, "HEAD") == [
        ("sub-ä b\t\n/anat/one.nii.gz", "URL--http://example.org/a&b.nii.gz", 0),
        ("sub-ä b\t\n/anat/pointer.nii.gz", "MD5E-s7--0123.nii.gz", 7),
    ]


def test_reads_small_files_that_git_holds_and_no_large_ones(tmp_path: Path) -> None:
    run_tool(["git", "init", "-q", tmp_path])
    (tmp_path / "small.json").write_bytes(ZLIB_FREE)
    (tmp_path / "large.nii.gz").write_bytes(bytes(2**20 + 1))
    run_tool(["git", "-C", tmp_path, "add", "."])
    run_tool(["git", "-C", tmp_path, "commit", "-qm", "sizes"])
    files = read_commit(tmp_path, "HEAD", lambda path: True)
    assert files["small.json"].content == ZLIB_FREE
    assert files["large.nii.gz"].content is None and files["large.nii.gz"].bytes == 2**20 + 1
    assert read_commit(tmp_path, "HEAD", lambda path: False) == {}


def test_an_unknown_commit_is_an_error(tiny_dataset: Path) -> None:
    with pytest.raises(AnnexError, match="nosuch"):
        list_images(tiny_dataset, "nosuch")


@pytest.mark.parametrize("path", ["sub-01/anat/sub-01_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz"])
def test_gets_content_and_leaves_the_clone_small(
    path: str, tiny_clone: Path, pristine_dataset: Path, tmp_path: Path
) -> None:
    got = tmp_path / "got.nii.gz"
    get_content(tiny_clone, keys_of(tiny_clone)[path], got)
    assert got.read_bytes() == (pristine_dataset / path).read_bytes()
    assert sizes(tiny_clone) == (0, 0)
    assert os.access(got, os.W_OK)


def test_gets_content_that_is_in_no_branch_any_more(tiny_dataset: Path, tiny_clone: Path, tmp_path: Path) -> None:
    key = keys_of(tiny_clone)["sub-04/anat/sub-04_T1w.nii.gz"]
    run_tool(["git", "-C", tiny_dataset, "rm", "-rq", "sub-04"])
    run_tool(["git", "-C", tiny_dataset, "commit", "-qm", "without sub-04"])
    run_tool(["git", "-C", tiny_clone, "fetch", "-q", "origin"])
    get_content(tiny_clone, key, tmp_path / "got.nii.gz")
    verify_content(tmp_path / "got.nii.gz", key)


@pytest.mark.parametrize("layout", ["bare", "submodule", "linked work tree"])
def test_content_is_found_in_every_layout_of_a_folder(
    layout: str, tiny_dataset: Path, tiny_clone: Path, pristine_dataset: Path, tmp_path: Path
) -> None:
    path, folder = "sub-01/anat/sub-01_T1w.nii.gz", tiny_dataset
    if layout == "bare":
        folder = tmp_path / "bare.git"
        run_tool(["git", "clone", "-q", "--bare", tiny_dataset, folder])
        run_tool(["git", "-C", folder, "annex", "init", "-q"])
        run_tool(["git", "-C", folder, "annex", "get", "-q", f"--key={keys_of(tiny_clone)[path]}"])
    elif layout == "submodule":
        (tiny_dataset / ".git").rename(tmp_path / "modules")
        (tiny_dataset / ".git").write_text("gitdir: ../modules\n")
    else:
        folder = tmp_path / "tree"
        run_tool(["git", "-C", tiny_dataset, "-c", "annex.private=true", "worktree", "add", "-q", folder, "v1"])
    run_tool(["git", "-C", tiny_clone, "remote", "set-url", "origin", folder])
    get_content(tiny_clone, keys_of(tiny_clone)[path], tmp_path / "got.nii.gz", waits_s=())
    assert (tmp_path / "got.nii.gz").read_bytes() == (pristine_dataset / path).read_bytes()


def test_neither_links_nor_pipes_of_a_folder_are_opened(tiny_dataset: Path, tiny_clone: Path, tmp_path: Path) -> None:
    key = keys_of(tiny_clone)["sub-01/anat/sub-01_T1w.nii.gz"]
    stored = object_of(tiny_dataset, key)
    stored.rename(tmp_path / "elsewhere")
    for plant in (lambda: stored.symlink_to(tmp_path / "elsewhere"), lambda: os.mkfifo(stored)):
        plant()
        with pytest.raises(AnnexError, match=r"tiny lacks it; not available"):
            get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=())
        stored.unlink()


def flip_a_bit(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "not the pinned content.*maintainers"),
        (lambda content: content + b"more", r"not the pinned content .2027 bytes, but its key says 2023.*maintainers"),
        (lambda content: content[:-8], r"not the pinned content .2015 bytes, but its key says 2023.*maintainers"),
    ],
    ids=["flipped bit", "too long", "cut short"],
)
def test_damage_at_the_remote_is_caught(
    damage, message: str, tiny_dataset: Path, tiny_clone: Path, tmp_path: Path
) -> None:
    key = keys_of(tiny_clone)["sub-01/anat/sub-01_T1w.nii.gz"]
    stored = object_of(tiny_dataset, key)
    good = stored.read_bytes()
    stored.write_bytes(damage(good))
    with pytest.raises(AnnexError, match=message):
        get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=(0,))
    assert not (tmp_path / "got.nii.gz").exists()
    assert sizes(tiny_clone) == (0, 0)

    stored.write_bytes(good)  # repaired upstream: the same clone then gets it
    get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=())
    assert (tmp_path / "got.nii.gz").read_bytes() == good


def test_content_that_no_remote_has(tiny_clone: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(AnnexError, match=r"not available.*annex whereis"):
        get_content(tiny_clone, f"SHA256E-s5--{'a' * 64}.nii.gz", tmp_path / "got.nii.gz", waits_s=(0, 1000))
    assert time.monotonic() - begin < 60  # it does not wait for what cannot come


def test_content_that_appears_at_the_remote_later_is_found(
    tiny_dataset: Path, tiny_clone: Path, tmp_path: Path
) -> None:
    """The clone's record of who has what is older than the content: a retry reads it again."""
    new = tmp_path / "new.nii.gz"
    new.write_bytes(gzip.compress(b"new"))
    key = run_tool(["git", "-C", tiny_dataset, "annex", "calckey", new]).stdout.decode().strip()
    run_tool(["git", "-C", tiny_dataset, "annex", "setkey", key, new])
    get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=(0,))
    assert gzip.decompress((tmp_path / "got.nii.gz").read_bytes()) == b"new"


def test_a_remote_that_is_away_is_tried_again(
    tiny_dataset: Path, tiny_clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys_of(tiny_clone)["sub-01/anat/sub-01_T1w.nii.gz"]
    away = tiny_dataset.rename(tmp_path / "away")
    waited = []
    monkeypatch.setattr(annex, "sleep", waited.append)
    with pytest.raises(AnnexError, match=r"tiny is not there.*Check the network"):
        get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=(1, 2))
    assert waited == [1, 2]  # a disk may be back soon
    monkeypatch.setattr(annex, "sleep", lambda seconds: away.rename(tiny_dataset))
    get_content(tiny_clone, key, tmp_path / "got.nii.gz", waits_s=(1,))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("path", ["sub-01/anat/sub-01_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz"])
def test_a_full_disk_at_the_destination(path: str, tiny_clone: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.nii.gz"
    full.symlink_to("/dev/full")
    with pytest.raises(AnnexError, match=r"is full. Free space"):
        get_content(tiny_clone, keys_of(tiny_clone)[path], full, waits_s=(1000,))
    assert not full.is_symlink() and sizes(tiny_clone) == (0, 0)


def test_without_a_clone(tmp_path: Path) -> None:
    with pytest.raises(AnnexError, match=r"is not a clone.*headsr pin"):
        get_content(tmp_path / "nosuch", "MD5E-s1--aa.nii.gz", tmp_path / "got.nii.gz")


@pytest.mark.parametrize("key", ["", "--force", "sub-01_T1w.nii.gz", "MD5-s\u0663--a", f"MD5-s{10**30}--a"])
def test_what_is_no_key_is_refused(key: str, tiny_clone: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnexError, match="not a git-annex key"):
        get_content(tiny_clone, key, tmp_path / "got.nii.gz")


def test_two_at_once_for_one_key(
    tiny_clone: Path, pristine_dataset: Path, tmp_path: Path, started: Callable[..., subprocess.Popen]
) -> None:
    path = "sub-01/anat/sub-01_T1w.nii.gz"
    program = "import sys; from headsr.annex import get_content; get_content(*sys.argv[1:], waits_s=())"
    outputs = [tmp_path / f"{i}.nii.gz" for i in range(2)]
    words = [sys.executable, "-c", program, tiny_clone, keys_of(tiny_clone)[path]]
    jobs = [started([*words, output]) for output in outputs]
    assert [job.wait(60) for job in jobs] == [0, 0]
    assert {output.read_bytes() for output in outputs} == {(pristine_dataset / path).read_bytes()}
    assert sizes(tiny_clone) == (0, 0)


CONTENT = gzip.compress(bytes(range(256)), mtime=0)
HASHES = {
    "MD5E": hashlib.md5,
    "SHA1": hashlib.sha1,
    "SHA224E": hashlib.sha224,
    "SHA256": hashlib.sha256,
    "SHA512E": hashlib.sha512,
    "SHA3_256E": hashlib.sha3_256,
    "BLAKE2B160E": lambda data: hashlib.blake2b(data, digest_size=20),
    "BLAKE2S256": lambda data: hashlib.blake2s(data, digest_size=32),
}


@pytest.mark.parametrize("backend", HASHES)
def test_verifies_the_hash_of_every_backend(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(CONTENT)
    key = f"{backend}-s{len(CONTENT)}--{HASHES[backend](CONTENT).hexdigest()}.nii.gz"
    verify_content(path, key)
    path.write_bytes(flip_a_bit(CONTENT))
    with pytest.raises(DamagedError, match=f"x.nii.gz.*{backend} hash"):
        verify_content(path, key)


def test_git_annex_agrees_on_our_hashes(tmp_path: Path) -> None:
    run_tool(["git", "init", "-q", tmp_path])
    run_tool(["git", "-C", tmp_path, "annex", "init", "-q"])
    path = tmp_path / "x.nii.gz"
    path.write_bytes(CONTENT)
    for backend in ("MD5E", "SHA3_512E", "BLAKE2B256E", "BLAKE2S224E", "WORM"):
        key = run_tool(["git", "-C", tmp_path, "annex", "calckey", f"--backend={backend}", path]).stdout
        verify_content(path, key.decode().strip())


def test_a_wrong_size_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    with pytest.raises(DamagedError, match="5 bytes, but its key says 6"):
        verify_content(path, "URL-s6--http://example.org/x")


@pytest.mark.parametrize("kept", [len(CONTENT) - 1, len(CONTENT) - 8, len(CONTENT) // 2, 5])
def test_a_truncated_gzip_is_damage_even_without_a_hash(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(CONTENT[:kept])
    with pytest.raises(DamagedError, match=r"damaged gzip file"):
        verify_content(path, "URL--http://example.org/x.nii.gz")


def test_every_flipped_bit_of_a_gzip_stream_is_damage_even_without_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    for at in range(10, len(CONTENT)):  # after the header, whose time stamp may be anything
        changed = bytearray(CONTENT)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            verify_content(path, "URL--http://example.org/x.nii.gz")


def test_a_tool_that_is_missing_hangs_or_fails() -> None:
    with pytest.raises(AnnexError, match="nosuchtool is not installed"):
        run_tool(["nosuchtool"])
    begin = time.monotonic()
    with pytest.raises(AnnexError, match=r"no end after 0 s|no end after 1 s"):
        run_tool(["sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.5)
    assert time.monotonic() - begin < 10
    with pytest.raises(AnnexError, match=r"first . second"):
        run_tool(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert run_tool(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_tools_are_found_beside_this_python_and_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    git = os.path.dirname(shutil.which("git"))
    monkeypatch.setenv("PATH", git)
    monkeypatch.setenv("GIT_DIR", "/nosuch")
    assert b"git-annex version" in run_tool(["git", "annex", "version"]).stdout
    said = run_tool(["sh", "-c", "echo $GIT_TERMINAL_PROMPT; (: < /dev/tty) 2>/dev/null || echo no terminal"]).stdout
    assert said.split(b"\n")[:2] == [b"0", b"no terminal"]


@pytest.mark.parametrize("backend", ["BLAKE2B999E", "BLAKE2B0", "BLAKE2S512"])
def test_a_hash_of_a_length_that_there_is_not_is_refused_in_words(
    backend: str, tiny_dataset: Path, tiny_clone: Path
) -> None:
    key = f"{backend}-s3--abc"
    place = next(annex._object_paths(tiny_dataset / ".git", key))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"abc")
    with pytest.raises(AnnexError, match=r"has a hash that git-annex cannot check.*tell the dataset's maintainers"):
        get_content(tiny_clone, key, tiny_clone / "got", waits_s=())
    assert not (tiny_clone / "got").exists()


def test_a_text_is_no_larger_than_a_text(tiny_clone: Path) -> None:
    with pytest.raises(AnnexError, match="is larger than a text"):
        get_text(tiny_clone, f"SHA256E-s{2**20 + 1}--{'0' * 64}.json")


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("size", [348, 540])
def test_a_plain_image_is_whole_under_a_name_of_gzip(size: int, order: str, tmp_path: Path) -> None:
    """Datasets hold them; what reads them next compresses them, or reads them as they are."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(size.to_bytes(4, order) + bytes(600))
    verify_content(path, "URL-s604--http://example.org/x")
    path.write_bytes((size + 1).to_bytes(4, order) + bytes(600))
    with pytest.raises(DamagedError, match="a damaged gzip file"):
        verify_content(path, "URL-s604--http://example.org/x")
