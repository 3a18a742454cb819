"""Trees of datasets as nobody should publish them: pinned and fetched as data, or refused in words; they start nothing.

``make test-long`` tries some; HEADSR_FUZZ_CASES=1000 tries that many and prints the table of docs/results/fuzzing.md.
Every tree follows from its number; each is a bare repository on this machine that is cloned, pinned and fetched from.
"""

import gzip
import hashlib
import os
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from faults import HARMLESS, cases, outcome_of, table, worst

from headsr import annex
from headsr.recipes import Dataset
from headsr.scans import Scan, read_pins
from headsr.sourcedata import fetch_scan, pin_datasets

pytestmark = pytest.mark.long
SHARE = 20
NAME, VERSION, GOOD = "tiny", "v1", "sub-01/anat/sub-01_T1w.nii.gz"
UUID = "11111111-1111-1111-1111-111111111111"
PROGRAMS = (
    "git-annex-remote-evil",
    "git-annex-backend-XEVIL",
    "git-remote-evil",
    "rsync",
    "bup",
    "tahoe",
    "gcrypt",
    "borg",
    "adb",
    "aria2c",
    "yt-dlp",
    "youtube-dl",
    "curl",
    "gpg",
    "gpg2",
    "payload",
    "ssh-askpass",
)
HASHES = {
    "SHA256": hashlib.sha256,
    "SHA1": hashlib.sha1,
    "MD5": hashlib.md5,
    "SHA512": hashlib.sha512,
    "SHA224": hashlib.sha224,
    "SHA3_256": hashlib.sha3_256,
    "SHA3_512": hashlib.sha3_512,
    "BLAKE2B256": lambda content: hashlib.blake2b(content, digest_size=32),
    "BLAKE2S256": hashlib.blake2s,
    "BLAKE2B512": hashlib.blake2b,
}
BACKENDS = (
    *(f"{name}{ending}" for name in HASHES for ending in ("", "E")),
    "SKEIN256E",
    "SKEIN512",
    "BLAKE2BP512E",
    "BLAKE2SP256",
    "BLAKE2B999E",
    "BLAKE2B0",
    "SHA3_999",
    "SHA9",
    "SHA",
    "XXH3E",
    "BLAKE3_256",
    "WORM",
    "URL",
    "VURL",
    "XEVIL",
    "XEVILE",
    "GIT",
    "",
    "sha256",
    "SHA256EE",
    "-",
    "../../x",
)
ODD_PATHS = (
    "sub-01/anat/sub-01_T1w.nii.gz\n", "sub-01/anat/sub-01_\x1b[31mT1w.nii.gz", "sub-01/anat/sub-01\udce9_T1w.nii.gz",
    "SUB-01/anat/SUB-01_T1w.nii.gz", "sub-01/ANAT/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_t1w.nii.gz",
    "sub-01/anat/sub-02_T1w.nii.gz", "-x/anat/-x_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii",
    "sub-é/anat/sub-é_T1w.nii.gz",
    f"sub-{'1' * 240}/anat/sub-{'1' * 240}_T1w.nii.gz", "sub-$(payload)/anat/sub-$(payload)_T1w.nii.gz",
    "sub-01/anat/sub-01_T1w.nii.gz/x", "sub-01/anat/sub-01_label-L_mask.nii.gz", "derivatives/sub-01_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_run-99999999999999999999_T1w.nii.gz", "sub-02/anat/sub-02_acq-a_acq-b_T1w.nii.gz",
    "sub-01/anat/\t", "a\\b", "sub-02/anat/sub-02_T1w.nii.gz", "sub-03/anat/sub-03_T2w.nii.gz",
    "sub-04/ses-1/anat/sub-04_ses-1_FLAIR.nii.gz", "sub-05/anat/sub-05_PDw.nii.gz",
)  # fmt: skip
TARGETS = (
    "/etc/passwd", "../../../../../../etc/passwd", "nowhere", "/proc/self/environ", "x" * 4000, "annex/objects/",
    "/annex/objects/", "../.git/annex/objects/a/b/c/d", "\x1b[31mannex/objects/x", ".git/annex/objects/%%%/&a&s&c",
    ".git\\annex\\objects\\SHA256E-s1--a\\SHA256E-s1--a", "annex/objects/SHA256E-s1--a\n",
)  # fmt: skip
REMOTES = (
    "type=external externaltype=evil encryption=none", "type=git location=evil::/x", "type=git location=ext::payload",
    "type=git location=ssh://-oProxyCommand=payload/x", "type=git location=file:///nowhere", "type=git location=/etc",
    "type=git location=http://127.0.0.1:9/x&10;[core]fsmonitor=payload", "type=git location=http://127.0.0.1:9/&0;",
    "type=git location=http://127.0.0.1:9/&55296;", "type=git location=", "type=git", "type=", "", "type=web",
    "type=rsync rsyncurl=-epayload:/x encryption=none", "type=bup buprepo=payload:/x", "type=gcrypt gitrepo=evil::x",
    "type=directory directory=/tmp encryption=none", "type=directory directory=/tmp importtree=yes encryption=none",
    "type=S3 bucket=x host=127.0.0.1 port=9 encryption=none", "type=S3 bucket=x encryption=pubkey cipher=x",
    "type=S3 bucket=x encryption=shared cipher=&&&&", "type=httpalso url=file:///etc encryption=none",
    "type=httpalso url=http://127.0.0.1:9/ encryption=none", "type=tahoe", "type=glacier", "type=webdav url=http://x",
    "type=hook hooktype=payload", "type=ddar ddarrepo=x", "type=p2p", "type=borg borgrepo=payload:x", "type=adb",
    "type=mask remote=origin encryption=none", "type=compute program=git-annex-compute-evil", "type=bittorrent",
)  # fmt: skip
URLS = ("http://127.0.0.1:9/x", "file:///etc/passwd", "evil::x", "magnet:?xt=urn:btih:abcd", "yt:http://127.0.0.1:9/x",
        "ftp://127.0.0.1:9/x", "http://127.0.0.1:9/x.torrent", "javascript:payload", "-epayload",
        "\x1b[2J", "")  # fmt: skip
SIDECARS = (
    '{"SliceThickness": 2}', '{"SliceThickness": 1e400}', '{"SliceThickness": "2"}', '{"SliceThickness": [[]]}',
    '{"SliceThickness": NaN}', '{"SliceThickness": -1}', f'{{"SliceThickness": {"9" * 5000}}}', "[" * 100_000, "null",
    "[]", "\ufeff{}", '{"SliceThickness": true}', "{", "\x00", '{"a": 1, "a": 2}', '{"SliceThickness": 1e-320}',
)  # fmt: skip
SETTINGS = "".join(
    f"[{section}]\n\t{name} = payload\n"
    for section, name in (
        ("core", "fsmonitor"), ("core", "sshCommand"), ("core", "pager"), ("core", "alternateRefsCommand"),
        ("uploadpack", "packObjectsHook"), ("diff", "external"), ('filter "evil"', "smudge"),
        ('filter "evil"', "clean"),
        ('filter "annex"', "process"), ("credential", "helper"), ("annex", "thawcontent-command"),
        ("annex", "freezecontent-command"), ("annex", "secure-erase-command"), ("annex", "youtube-dl-command"),
        ('remote "origin"', "uploadpack"), ("gpg", "program"), ("trailer.x", "command"), ("alias", "annex"),
    )
)  # fmt: skip


HOOKS = ("post-checkout", "post-update", "pre-auto-gc", "pre-commit", "post-index-change", "reference-transaction")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A bare repository that git-annex made, and what its branch of that name holds: each tree is a copy of it."""
    folder = tmp_path_factory.mktemp("base") / "base"
    annex.run_tool(["git", "init", "--bare", "--quiet", folder])
    annex.run_tool(["git", "-C", folder, "annex", "init", "--quiet", "base"])
    for hook in (folder / "hooks").iterdir():
        hook.unlink()
    return folder


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A file that appears when a program is started that a dataset may name."""
    programs, mark = tmp_path / "programs", tmp_path / "started"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(f'#!/bin/sh\necho "$0 $@" >> "{mark}"\nexit 1\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(annex.get_content.__kwdefaults__, "waits_s", ())
    return mark


class Tree:
    """One dataset, written by chance into a copy of the base: most of it is as it should be."""

    def __init__(self, base: Path, folder: Path, number: int) -> None:
        self.chance, self.folder = random.Random(number), folder
        self.kind = self.chance.choice(sorted(KINDS))
        self.content = gzip.compress(self.chance.randbytes(300), mtime=0)
        self.good = self.key_of(self.content, "SHA256E")
        self.files: dict[str, tuple[str, bytes]] = {}
        self.of_annex: dict[str, str] = {}
        self.has_settings = False
        self.pinned = True  # whether the good scan must be in the table, if there is one
        shutil.copytree(base, folder, symlinks=True)
        self.put(GOOD, self.good, self.content)
        self.files["dataset_description.json"] = "100644", b"{}"
        for _ in range(self.chance.randint(1, 4)):
            KINDS[self.kind](self)
        self.commit()
        if self.has_settings:
            with (folder / "config").open("a") as stream:
                stream.write(SETTINGS)
            for hook in HOOKS:
                (folder / "hooks" / hook).symlink_to(folder.parent / "programs" / "payload")

    def key_of(self, content: bytes, backend: str, *, size: str | None = None, ending: str = ".nii.gz") -> str:
        plain = backend.removesuffix("E")
        digest = HASHES[plain](content).hexdigest() if plain in HASHES else hashlib.sha256(content).hexdigest()
        size = f"-s{len(content)}" if size is None else size
        return f"{backend}{size}--{digest}{ending if backend.endswith('E') else ''}"

    def put(self, path: str, key: str, content: bytes | None) -> None:
        """A file by its key, as a link or a pointer, and its content in the repository."""
        name = annex._file_name(key)
        if self.chance.random() < 0.7:
            above = "../" * path.count("/")
            self.files[path] = "120000", os.fsencode(f"{above}.git/annex/objects/aa/bb/{name}/{name}")
        else:
            self.files[path] = "100644", os.fsencode(f"/annex/objects/{name}\n")
        if content is not None and len(os.fsencode(name)) < 250 and "\0" not in name and name not in ("", ".", ".."):
            place = list(annex._object_paths(self.folder, key))[self.chance.randrange(2)]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def new_path(self) -> str:
        person = f"sub-{self.chance.randrange(10, 99)}"
        return f"{person}/anat/{person}_{self.chance.choice(('T1w', 'T2w'))}.nii.gz"

    def commit(self) -> None:
        """Write both branches and the tag."""
        stream = bytearray()
        branches = [("refs/heads/master", self.files)]
        if self.of_annex or self.chance.random() < 0.3:
            logs = {path: ("100644", text.encode("utf-8", "surrogateescape")) for path, text in self.of_annex.items()}
            branches.append(("refs/heads/git-annex", {"uuid.log": ("100644", f"{UUID} here\n".encode()), **logs}))
        for reference, files in branches:
            stream += f"commit {reference}\ncommitter a <a@b> 0 +0000\ndata 1\nx\ndeleteall\n".encode()
            for path, (mode, content) in files.items():
                quoted = b'"%s"' % b"".join(b"\\%03o" % byte for byte in os.fsencode(path))
                if mode == "160000":
                    stream += b"M 160000 " + b"1" * 40 + b" " + quoted + b"\n"
                else:
                    stream += b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), quoted, len(content), content)
        stream += f"reset refs/tags/{VERSION}\nfrom refs/heads/master\n\n".encode()
        subprocess.run(
            ["git", "-C", self.folder, "fast-import", "--quiet", "--force"], input=bytes(stream), check=True,
            capture_output=True,
        )  # fmt: skip


def odd_key(tree: Tree) -> None:
    """Any backend, size and hash, with the content as it is or as it is not."""
    chance = tree.chance
    content = gzip.compress(chance.randbytes(50), mtime=0)
    sizes = (
        None,
        None,
        None,
        "",
        "-s0",
        "-s1",
        f"-s{'9' * 30}",
        f"-s{'9' * 5000}",
        "-s-1",
        "-s\u0663",
        "-m1-s5",
        "-S5-C1",
    )
    key = tree.key_of(content, chance.choice(BACKENDS), size=chance.choice(sizes))
    if chance.random() < 0.2:
        head, _, digest = key.partition("--")
        wrong = (
            digest.upper(),
            digest[:9],
            "",
            f"../../{digest}",
            f"%%{digest}",
            f"&{digest}:",
            f"{digest}\x1b[31m",
            "0" * 5000,
        )
        key = f"{head}--{chance.choice(wrong)}"
    stored = chance.choice((content, content, content, content[:-1], bytes(len(content)), content + b"x", None))
    tree.put(tree.new_path(), key, stored)


def odd_path(tree: Tree) -> None:
    tree.put(path := tree.chance.choice(ODD_PATHS), tree.good, tree.content)
    if path.startswith(GOOD):
        tree.files.pop(GOOD, None) if path.endswith("/x") else None
        tree.pinned = not path.endswith("/x")


def odd_link(tree: Tree) -> None:
    mode = tree.chance.choice(("120000", "120000", "100755"))
    target = tree.chance.choice(TARGETS)
    tree.files[tree.new_path()] = mode, os.fsencode(target if mode == "120000" else f"/{target}")


def submodule(tree: Tree) -> None:
    place = tree.chance.choice(("sub-77", "sub-78/anat", tree.new_path(), "sourcedata"))
    tree.files[place] = "160000", b""
    evil = tree.chance.choice(("ext::payload", "-upayload", "evil::x", "file:///nowhere"))
    tree.files[".gitmodules"] = (
        "100644",
        f'[submodule "a"]\n\tpath = {place}\n\turl = {evil}\n\tupdate = !payload\n'.encode(),
    )


def settings(tree: Tree) -> None:
    """What the repository itself would have git and git-annex do."""
    tree.has_settings = True
    tree.files[".gitattributes"] = "100644", b"* filter=evil diff=evil merge=evil annex.backend=XEVIL\n"
    tree.files[".gitconfig"] = tree.files[".datalad/config"] = "100644", SETTINGS.encode()
    tree.files[".lfsconfig"] = "100644", b"[lfs]\n\turl = evil::x\n"


def remotes(tree: Tree) -> None:
    """Remotes that ask to be enabled, and contents that only they have."""
    chance = tree.chance
    names = ("wanted", "a-b", "origin", "web", "-x", "a b", "a\x1b[31m", "", "x" * 300, "a.b.url", "&10;[core]", "é")
    times = ("1598041450s", "nan", "inf", "-1s", "1e999s", "x", "")
    uuids, asked = (UUID, f"{UUID[:-1]}2", "-x", "", "x" * 100), ("true", "true", "TRUE")
    lines = [
        f"{chance.choice(uuids)} autoenable={chance.choice(asked)} name={chance.choice(names)} "
        f"{chance.choice(REMOTES)} timestamp={chance.choice(times)}"
        for _ in range(chance.randint(1, 4))
    ]
    tree.of_annex["remote.log"] = "\n".join(lines) + chance.choice(("\n", "", "\n\x00\udcff\n"))
    key = tree.key_of(tree.content + b"2", "SHA256E")
    tree.put(tree.new_path(), key, None)
    digest = hashlib.md5(os.fsencode(key)).hexdigest()
    log = f"{digest[:3]}/{digest[3:6]}/{annex._file_name(key)}.log"
    tree.of_annex[log] = f"1598041450s 1 {chance.choice((UUID, '00000000-0000-0000-0000-000000000001'))}\n"
    tree.of_annex[f"{log}.web"] = f"1598041450s 1 {chance.choice(URLS)}\n"


def sidecars(tree: Tree) -> None:
    place = tree.chance.choice(("T1w.json", "sub-01/anat/sub-01_T1w.json", "sub-01/sub-01_T1w.json"))
    tree.files[place] = "100644", tree.chance.choice(SIDECARS).encode()
    if tree.chance.random() < 0.2:
        tree.files[place] = "100644", tree.chance.choice((b"\xff\xfe{", b"\xe9", b"{" * 2_000_000))


def objects(tree: Tree) -> None:
    """What lies where the good scan's content should."""
    for place in annex._object_paths(tree.folder, tree.good):
        if not os.path.lexists(place):
            continue
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        how = tree.chance.randrange(6)
        if how == 0:
            place.symlink_to(tree.chance.choice(("/etc/passwd", "/dev/zero", place.name)))
        elif how == 1:
            os.mkfifo(place)
        elif how == 2:
            place.mkdir()
        elif how == 3:
            place.write_bytes(gzip.compress(tree.chance.randbytes(300), mtime=0))
        elif how == 4:
            place.write_bytes(tree.content[:-1] + bytes([tree.content[-1] ^ 1]))


KINDS = {
    "keys": odd_key,
    "names of files": odd_path,
    "links and pointers": odd_link,
    "submodules": submodule,
    "settings and hooks": settings,
    "remotes and addresses": remotes,
    "sidecars": sidecars,
    "contents": objects,
}


def pinned(folder: Path) -> tuple[str, list[Scan]]:
    """What a pin of the dataset reports and writes."""
    recipe = Dataset(str(folder / "origin"), VERSION, "CC0", "nobody")
    report = pin_datasets({NAME: recipe}, clones=folder / "clones", table=folder / "scans.tsv")
    return report.text(), list(read_pins(folder / "scans.tsv"))


def is_right_pin(found: tuple[str, list[Scan]], tree: Tree) -> bool:
    """Whether the good scan is there by its key, and nothing would move a cursor."""
    text, scans = found
    keys = {scan.path: scan.key for scan in scans}
    printable = all(one.isprintable() or one == "\n" for one in text + "".join(f"{s.path}{s.key}" for s in scans))
    return printable and (not tree.pinned or keys.get(GOOD) == tree.good)


def is_right_content(path: Path, key: str) -> bool:
    """Whether what was fetched has the hash of its key; a key without one says nothing."""
    content = path.read_bytes()
    backend, _, rest = key.partition("-")
    digest = rest.partition("--")[2].partition(".")[0] if backend != "GIT" else key.partition("--")[2]
    if backend == "GIT":
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == digest
    hasher = HASHES.get(backend.removesuffix("E"))
    return not annex.pins_content(key) if hasher is None else hasher(content).hexdigest() == digest


def fetched(scan: Scan, folder: Path) -> list[tuple[str, str]]:
    """What a fetch of one pinned file comes to."""
    got = folder / "got.nii.gz"
    got.unlink(missing_ok=True)
    reached = outcome_of(
        lambda: fetch_scan(got, clone=folder / "clones" / NAME, name=scan.name, key=scan.key),
        is_right=lambda _: is_right_content(got, scan.key),
        named=NAME,
        seconds=300,
    )
    left = [("wrong", f"{got} was left behind")] if reached[0] in HARMLESS[1:] and got.exists() else []
    return [reached, *left]


def outcome(number: int, base: Path, folder: Path) -> tuple[str, str, str]:
    """The kind of a tree, the worst of what its pin and its fetches come to, and what was said."""
    for name in ("origin", "clones", "scans.tsv", "got.nii.gz"):
        place = folder / name
        if place.is_dir():
            subprocess.run(["chmod", "-R", "u+w", place], check=True)
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
    tree = Tree(base, folder / "origin", number)
    outcomes = [
        outcome_of(lambda: pinned(folder), is_right=lambda found: is_right_pin(found, tree), named=NAME, seconds=300)
    ]
    if outcomes[0][0] == "right":
        scans = list(read_pins(folder / "scans.tsv"))
        for scan in tree.chance.sample(scans, min(2, len(scans))):
            outcomes += fetched(scan, folder)
    return tree.kind, *worst(outcomes)


def test_a_hostile_dataset_is_data(base, tmp_path, started):
    counts, faults = defaultdict(Counter), []
    for number in cases(SHARE):
        kind, reached, said = outcome(number, base, tmp_path)
        if started.exists():
            reached, said = "wrong", f"started {started.read_text()}"
            started.unlink()
        counts[kind][reached] += 1
        if reached not in HARMLESS:
            faults.append(f"{kind}, tree {number}: {reached}: {said[:500]}")
    print(table(counts))
    assert not faults, "\n".join(faults[:40])


def test_the_traps_are_set(base, tmp_path, started):
    """Whoever works in such a repository starts what it names: else nothing above could fail."""
    number = next(n for n in range(100) if random.Random(n).choice(sorted(KINDS)) == "settings and hooks")
    tree = Tree(base, tmp_path / "origin", number)
    subprocess.run(["git", "-C", tree.folder, "update-ref", "refs/heads/x", "HEAD"], capture_output=True, check=False)
    assert "reference-transaction" in started.read_text()
