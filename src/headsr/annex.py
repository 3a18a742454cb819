"""git-annex seen from outside: what a commit holds, without touching content, and one content got by its key.

Standard library only: Snakemake's jobs import this module again and again. The tools (git, git-annex, datalad) are
called as commands, with time-outs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import IO, NamedTuple

from headsr.files import is_plain_nifti, whole
from headsr.words import is_plain, shown

_log = logging.getLogger(__name__)
_KEY = re.compile(
    r"(?P<backend>[A-Z0-9_]+)(?:-s(?P<bytes>\d{1,18}))?(?:-[mSC]\d{1,18})*--(?P<hash>[^.]*).*", re.DOTALL | re.ASCII
)
# The backends whose keys hash the content. Others name a file (WORM) or an address (URL), and those that begin with X
# of their own are programs that a dataset names (git-annex-backend-XNAME).
_HASH = re.compile(r"(?:MD5|SHA\d+|SHA3_\d+|SKEIN\d+|BLAKE2[BS]P?\d+|BLAKE3(?:_\d+)?|XXH3)E?|GIT", re.ASCII)
_PROGRAM = re.compile(r"X(?!XH3E?$)")
_TEXT_BYTES = 2**20  # a larger blob in git is an image, never a link, a pointer or a sidecar
_QUICK_S = 120  # what answers from the disk
_SILENCE_S = 180  # a line may be slow, but not silent for so long
_PAUSE_S = 1.0  # between two looks for a free slot: as much as a small scan takes
_REPORT = "if it stays so, tell the dataset's maintainers and set the scan's split to unused in the table"
# Set where headsr runs inside a git hook; they would send every command to another repository.
_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
# What git adds to every reason: that somebody else owns a folder, say, which it gives with the command to allow it.
_SAYS_NOTHING = ("Please make sure you have the correct access rights", "and the repository exists.")
# git starts the program git-remote-X for an address X::..., and a dataset may hold such addresses. It also reads a
# folder that lacks objects through whatever that folder's configuration names.
_NO_PROGRAMS = {"GIT_ALLOW_PROTOCOL": "http:https:ssh:file", "GIT_NO_LAZY_FETCH": "1"}
# git-annex has this remote without being asked, and starts aria2c where a dataset says that it has a content.
_NO_TORRENTS = ("-c", "remote.bittorrent.annex-ignore=true")


class AnnexError(RuntimeError):
    """A repository or a content cannot be had. ``lasting`` says that trying again will not help.

    The message quotes datasets, servers and tools: it has no passwords, and nothing that a terminal would obey.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(shown(message))
        self.lasting = lasting


class OverdueError(AnnexError):
    """A tool did not come to an end."""


class DamagedError(AnnexError):
    """Bytes are not what their key says."""


class TreeFile(NamedTuple):
    """One file of a commit: ``key`` is its annex key, or ``GIT-s<bytes>--<blob hash>`` where git itself holds it.

    ``bytes`` is 0 where the key does not tell; ``content`` is what git holds (at most 1 MiB), None for annexed files.
    """

    path: str
    key: str
    bytes: int
    content: bytes | None


def run_tool(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float = _QUICK_S,
    progress: Callable[[], object] | None = None,
    stdin: bytes = b"",
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run git, git-annex or datalad: no shell, no prompt, its children ended with it.

    Raises OverdueError when it takes longer than ``timeout_s`` seconds (where ``progress`` is given: when that gives
    the same for so long), and AnnexError with the last lines of its standard error when it is missing or, with
    ``check``, fails.
    """
    words = [os.fspath(word) for word in arguments]
    environment = _environment()
    # Looked up here: Popen would search this process's own PATH, which need not hold the environment's folder.
    program = shutil.which(words[0], path=environment["PATH"])
    if program is None:
        raise AnnexError(f"{words[0]} is not installed. Install it and try again", lasting=True)
    with (
        leaving_when_told(),
        subprocess.Popen(
            [program, *words[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # also leaves no terminal to ask for a password on
        ) as process,
    ):
        try:
            out, err = _communicate(process, stdin, timeout_s, progress)
        except subprocess.TimeoutExpired:
            _end(process)
            way_out = "Check the network and the disk, then try again"
            raise OverdueError(f"{' '.join(words)}: no end after {timeout_s:.0f} s. {way_out}") from None
        except BaseException:
            _end(process)
            raise
    if check and process.returncode != 0:
        raise AnnexError(f"{' '.join(words)}: {last_lines(err or out)}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@contextlib.contextmanager
def leaving_when_told() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the block as an exit does, so that children are ended and half work is removed.

    By themselves they would end this process and nothing else. Handlers that somebody set stay, as they know better.
    """
    numbers = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    replaced = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def last_lines(output: bytes, count: int = 4) -> str:
    """The last lines that say something, on one line, for an error message."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if line not in _SAYS_NOTHING]
    return " | ".join(lines[-count:]) or "it failed and said nothing"


def read_commit(repository: str | os.PathLike[str], commit: str, wanted: Callable[[str], bool]) -> dict[str, TreeFile]:
    """The files of a commit whose path is ``wanted``, by path, from git alone: one ``ls-tree`` and one ``cat-file``.

    Works without any content and without a checkout. A locked file is a symbolic link and an unlocked one a pointer;
    both hold the key. A link that leads elsewhere is left out with a warning.
    """
    listing = run_tool(["git", "-C", repository, "ls-tree", "-r", "-z", "-l", "--full-tree", commit]).stdout
    entries = [entry for entry in map(_tree_entry, listing.split(b"\0")) if entry is not None and wanted(entry[0])]
    texts = _read_blobs(repository, {blob for _, _, blob, size in entries if size <= _TEXT_BYTES})
    files = (_tree_file(path, mode, blob, size, texts.get(blob)) for path, mode, blob, size in entries)
    return {file.path: file for file in files if file is not None}


def subdatasets(repository: str | os.PathLike[str], commit: str) -> dict[str, str]:
    """The commit of every subdataset (a submodule of git) of a commit, by its path."""
    listing = run_tool(["git", "-C", repository, "ls-tree", "-r", "-z", "--full-tree", commit]).stdout
    entries = (record.partition(b"\t") for record in listing.split(b"\0"))
    return {os.fsdecode(path): head.split()[2].decode() for head, _, path in entries if b" commit " in head}


def get_text(repository: str | os.PathLike[str], key: str) -> bytes:
    """The content of a small file, by its key. It is got once: the git folder of the repository keeps it.

    Raises AnnexError where it cannot be had now or is larger than a text.
    """
    if int(_parse_key(key)["bytes"] or 0) > _TEXT_BYTES:
        raise AnnexError(f"{key} is larger than a text", lasting=True)
    kept = _git_dir(repository) / "headsr-texts" / hashlib.sha256(key.encode()).hexdigest()
    if not kept.exists():
        with whole(kept) as partial:
            get_content(repository, key, partial, waits_s=())
    with kept.open("rb") as stream:
        return stream.read(_TEXT_BYTES)


def get_content(
    repository: str | os.PathLike[str],
    key: str,
    destination: str | os.PathLike[str],
    *,
    at_once: int = 4,
    waits_s: Sequence[float] = (2, 10, 30),
) -> None:
    """Write the content of ``key`` to ``destination``, verified; the repository ends as small as it began.

    A remote that is a folder of this machine is data: its content is copied, and git-annex never works in it, where it
    would obey its configuration and hooks. Of other remotes at most ``at_once`` (1 or more)
    processes get content for one repository at a time, whichever run they belong to; the others wait. A failure that
    may pass is tried again after each of ``waits_s`` seconds. Raises AnnexError (its message says what to try) and then
    leaves nothing at ``destination``, which need not be atomic: give a path that is moved later.
    """
    _parse_key(key)
    git_dir = _git_dir(repository)
    target = Path(destination)
    if not pins_content(key):
        _log.warning("%s is a key without a hash: what was fetched for it was checked by its size alone", shown(key))
    try:
        if key.startswith("GIT-"):
            _copy_blob(repository, key, target)
            return
        folders = [folder for folder in map(local_folder, remote_addresses(repository).values()) if folder is not None]
        if folders and not _lacking(repository, folders, key, target):
            return
        _refuse_unprepared(repository)
        with _one_at_a_time(git_dir, key), _size_kept(repository, git_dir, key):
            _get_with_patience(
                repository, key, target, git_dir=git_dir, folders=folders, at_once=at_once, waits_s=waits_s
            )
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = os.path.dirname(error.filename or target)  # of what could not be opened, else of what is written
            raise AnnexError(f"the disk of {folder} is full. Free space and try again", lasting=True) from error
        raise


def pins_content(key: str) -> bool:
    """Whether a key says which bytes its content has, so that no other content can be taken for it."""
    return _HASH.fullmatch(_parse_key(key)["backend"]) is not None


def verify_content(path: str | os.PathLike[str], key: str) -> None:
    """Check size and hash of a file against its key and, for a gzip file, read the stream to its end.

    A plain NIfTI image passes under any name. The gzip check catches what a key without a hash (URL, WORM) cannot:
    nibabel itself never looks at the CRC. Raises DamagedError naming the file.
    """
    match = _parse_key(key)
    size = os.path.getsize(path)
    _refuse_other_size(path, size, match)
    hasher = _hasher(match, size)
    if hasher is not None:
        with open(path, "rb") as stream:
            while block := stream.read(2**20):
                hasher.update(block)
        if hasher.hexdigest() != match["hash"]:
            raise DamagedError(f"{path}: its {match['backend']} hash is {hasher.hexdigest()}, not that of its key")
    if os.fspath(path).endswith(".gz") and not is_plain_nifti(path):
        _read_gzip_to_end(path)


def remote_addresses(repository: str | os.PathLike[str]) -> dict[str, str]:
    """The address of every remote that has one, by its name."""
    words = ["git", "-C", repository, "config", "--null", "--get-regexp", r"^remote\..*\.url$"]
    entries = (entry.partition("\n") for entry in os.fsdecode(run_tool(words, check=False).stdout).split("\0") if entry)
    return {name.removeprefix("remote.").removesuffix(".url"): address for name, _, address in entries}


def local_folder(address: str) -> Path | None:
    """The folder of this machine that an address of git names; None for any other address."""
    path = address.removeprefix("file://")
    return Path(path) if path.startswith("/") else None


def _environment() -> dict[str, str]:
    """What the tools see: this Python's folder first, since git finds git-annex by PATH, and a committer's name."""
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS} | _NO_PROGRAMS
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])
    environment["GIT_TERMINAL_PROMPT"] = "0"
    # git refuses to commit on a machine without a configured identity, and git-annex commits where content is.
    for role in ("AUTHOR", "COMMITTER"):
        environment.setdefault(f"GIT_{role}_NAME", "headsr")
        environment.setdefault(f"GIT_{role}_EMAIL", "headsr@localhost")
    return environment


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes, timeout_s: float, progress: Callable[[], object] | None
) -> tuple[bytes, bytes]:
    look = progress or (lambda: None)
    seen, unsent = look(), stdin or None
    while True:
        try:
            return process.communicate(unsent, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            last, seen, unsent = seen, look(), None
            if seen == last:
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _git_dir(repository: str | os.PathLike[str]) -> Path:
    words = ["git", "-C", repository, "rev-parse", "--absolute-git-dir"]
    found = run_tool(words).stdout if os.path.exists(os.path.join(repository, ".git")) else b""
    if not found:
        raise AnnexError(f"{repository} is not a clone. Clone the dataset with: headsr pin", lasting=True)
    return Path(os.fsdecode(found.rstrip(b"\n")))


def _tree_entry(record: bytes) -> tuple[str, bytes, str, int] | None:
    """Path, mode, blob hash and bytes of one record of ``ls-tree -z -l``; None for submodules and the empty end."""
    head, _, path = record.partition(b"\t")
    fields = head.split()
    if len(fields) != 4 or fields[1] != b"blob":
        return None
    return os.fsdecode(path), fields[0], fields[2].decode(), int(fields[3])


def _read_blobs(repository: str | os.PathLike[str], blobs: Iterable[str]) -> dict[str, bytes]:
    wanted = "".join(f"{blob}\n" for blob in blobs).encode()
    output = run_tool(["git", "-C", repository, "cat-file", "--batch"], stdin=wanted).stdout
    contents, at = {}, 0
    while at < len(output):
        end = output.index(b"\n", at)
        blob, kind, *size = output[at:end].split()
        if kind != b"blob":
            raise AnnexError(f"{repository}: git lacks the object {blob.decode()}. Move the clone away and pin again")
        start, at = end + 1, end + 1 + int(size[0]) + 1
        contents[blob.decode()] = output[start : at - 1]
    return contents


def _tree_file(path: str, mode: bytes, blob: str, size: int, text: bytes | None) -> TreeFile | None:
    if mode == b"120000":
        target = (text or b"").replace(b"\\", b"/")
        if b"annex/objects/" in target:
            return _annexed_or_none(path, target)
        _log.warning("%s is a link to %s, not to annexed content: left out", shown(path), shown(os.fsdecode(target)))
        return None
    if text is not None and text.startswith(b"/annex/objects/"):
        return _annexed_or_none(path, text.splitlines()[0])
    return TreeFile(path, f"GIT-s{size}--{blob}", size, text)


def _annexed_or_none(path: str, target: bytes) -> TreeFile | None:
    try:
        return _annexed(path, target)
    except AnnexError as error:
        _log.warning("%s: %s. It was left out", shown(path), error)
        return None


def _annexed(path: str, target: bytes) -> TreeFile:
    """A file from what its link or pointer says: the key is the last part, with git-annex's escapes undone."""
    escapes = {"&a": "&", "&s": "%", "&c": ":", "%": "/"}
    name = os.fsdecode(target.rsplit(b"/", 1)[-1])
    key = re.sub("&[asc]|%", lambda found: escapes[found[0]], name)
    return TreeFile(path, key, int(_parse_key(key)["bytes"] or 0), None)


def _parse_key(key: str) -> re.Match[str]:
    match = _KEY.fullmatch(key)
    if match is None or not is_plain(key):
        raise AnnexError(f"{key!r} is not a git-annex key. Pin the dataset again with: headsr pin", lasting=True)
    if _PROGRAM.match(match["backend"]):
        raise AnnexError(f"{key} could only be checked by a program that the dataset names", lasting=True)
    if match["backend"] == "GIT" and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", match["hash"]):
        raise AnnexError(f"{key!r} names no file that git holds. Pin the dataset again with: headsr pin", lasting=True)
    return match


@contextlib.contextmanager
def _one_at_a_time(git_dir: Path, key: str) -> Iterator[None]:
    """Two scans of one content share a key: its byte of a lock file is held, so neither drops what the other reads."""
    with open(git_dir / "headsr.lock", "ab") as stream:
        with contextlib.suppress(OSError):  # some network file systems have no locks; then the retries must do
            fcntl.lockf(stream, fcntl.LOCK_EX, 1, int(hashlib.sha256(key.encode()).hexdigest()[:12], 16))
        yield


@contextlib.contextmanager
def _one_of(at_once: int, git_dir: Path) -> Iterator[None]:
    """Hold a slot, a byte of a lock file, so that no more than ``at_once`` jobs of any run ask the remotes at a time.

    The file is not that of ``_one_at_a_time``: a process that closes a file loses all its locks on it.
    """
    with open(git_dir / "headsr-slots.lock", "ab") as stream:
        if not _take_slot(stream, at_once):
            _log.info("waiting: %d scans are being fetched through %s", at_once, git_dir)
            while not _take_slot(stream, at_once):
                sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # apart, so that those who wait do not ask all at once
        yield


def _take_slot(stream: IO[bytes], slots: int) -> bool:
    for slot in range(slots):
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except (BlockingIOError, PermissionError):
            continue  # another process holds it
        except OSError:
            return True  # a file system without locks: scans must be fetched all the same
        return True
    return False


@contextlib.contextmanager
def _size_kept(repository: str | os.PathLike[str], git_dir: Path, key: str) -> Iterator[None]:
    """Take back out of the repository what was got inside the block."""
    was_there = _location(repository, key) is not None
    try:
        yield
    finally:
        _partial(git_dir, key).unlink(missing_ok=True)
        if not was_there:
            # Forced: asking a remote whether it still has what it just sent would cost a round trip per scan.
            try:
                _annex(repository, "drop", "--force", f"--key={key}", check=True)
            except AnnexError as error:  # the scan itself is there, or has a better reason why not
                _log.warning("%s keeps the content of %s: %s", repository, key, error)


def _get_with_patience(
    repository: str | os.PathLike[str],
    key: str,
    target: Path,
    *,
    git_dir: Path,
    folders: Sequence[Path],
    at_once: int,
    waits_s: Sequence[float],
) -> None:
    for attempt, wait in enumerate((*waits_s, None)):
        lacking = _lacking(repository, folders, key, target)
        if folders and not lacking:
            return
        try:
            with _one_of(at_once, git_dir):
                _get(repository, key, git_dir, lacking=lacking)
            with _open_location(repository, key) as source:
                _copy(source, target)
            verify_content(target, key)
            return
        except (AnnexError, FileNotFoundError) as error:
            unknown = "not available" in str(error) and attempt > 0 and not any(map(_is_away, folders))
            if wait is None or unknown or getattr(error, "lasting", False):
                raise
            _log.warning("%s; trying again in %g s", error, wait)
            if isinstance(error, DamagedError):
                _partial(git_dir, key).unlink(missing_ok=True)  # git-annex would go on where the wrong bytes end
                _annex(repository, "fsck", f"--key={key}")  # sets a damaged copy aside, in .git/annex/bad
        sleep(wait)
        # The content may have moved to another remote since the clone was made; git-annex reads that from origin.
        with contextlib.suppress(AnnexError):
            run_tool(["git", "-C", repository, "fetch", "--quiet", "--no-recurse-submodules", "origin"])


def _refuse_unprepared(repository: str | os.PathLike[str]) -> None:
    """git-annex is asked only in a clone whose remotes headsr chose (headsr.clones), not where a dataset did."""
    for setting, what in (
        ("headsr.remotes", "was made by an earlier headsr"),
        ("annex.uuid", "is not git-annex's yet"),
    ):
        if run_tool(["git", "-C", repository, "config", "--get", setting], check=False).returncode != 0:
            raise AnnexError(f"the clone {repository} {what}. Pin the dataset again with: headsr pin", lasting=True)


def _lacking(repository: str | os.PathLike[str], folders: Iterable[Path], key: str, target: Path) -> str:
    """Copy a content out of one of some repositories that are read as plain files; '' or why none of them gave it."""
    reasons = []
    for folder in folders:
        try:
            with _open_object(folder, key) as source:
                _copy(source, target)
            _verify_by_git_annex(repository, target, key)
            verify_content(target, key)
        except FileNotFoundError:
            reasons.append(f"{folder} is not there" if _is_away(folder) else f"{folder} lacks it")
        except DamagedError as error:
            if error.lasting:
                raise
            wrong = str(error).rpartition(": ")[2]
            reasons.append(f"what {folder} holds is not the pinned content ({wrong}): repair it there; {_REPORT}")
        else:
            return ""
    return "; ".join(reasons)


def _verify_by_git_annex(repository: str | os.PathLike[str], path: Path, key: str) -> None:
    """Have git-annex compute a hash that Python does not know; DamagedError where it is not the key's."""
    match = _parse_key(key)
    if not pins_content(key) or _hasher(match, 0) is not None:
        return
    backend = match["backend"].removesuffix("E")
    found = _annex(repository, "calckey", f"--backend={backend}", "--", os.path.abspath(path))
    if found.returncode != 0:
        raise AnnexError(f"{key} has a hash that git-annex cannot check: {_REPORT}", lasting=True)
    if _parse_key(os.fsdecode(found.stdout.strip()))["hash"] != match["hash"]:
        raise DamagedError(f"{path}: its {backend} hash is not that of its key")


def _is_away(folder: Path) -> bool:
    return not os.path.isdir(folder)


def _open_object(folder: Path, key: str) -> IO[bytes]:
    """Open a content inside a repository, in whichever of git-annex's layouts; FileNotFoundError where it is not.

    No link is followed and no pipe waited for. Raises DamagedError where the size is not the key's.
    """
    for path in _object_paths(common_git_dir(folder), key):
        try:
            stream = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # noqa: SIM115 - given away
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue
            raise AnnexError(f"{path}: {error.strerror}. Make it readable and try again", lasting=True) from None
        status = os.fstat(stream.fileno())
        if stat.S_ISREG(status.st_mode):
            _refuse_other_size(path, status.st_size, _parse_key(key))
            return stream
        stream.close()
    raise FileNotFoundError(errno.ENOENT, "no such content", os.fspath(folder))


def _object_paths(git_dir: Path, key: str) -> Iterator[Path]:
    """Where a content may lie in a repository: git-annex sorts contents by a hash of their key, in one of four ways."""
    digest = hashlib.md5(os.fsencode(key), usedforsecurity=False).digest()
    letters, bits = "0123456789zqjxkmvwgpfZQJXKMVWGPF", struct.unpack("<I", digest[:4])[0]
    one, two = ("".join(letters[bits >> 6 * place & 31] for place in places) for places in ((1, 0), (3, 2)))
    three, four = digest.hex()[:3], digest.hex()[3:6]
    name = _file_name(key)
    for folders in ((one, two), (three, four), (one,), (three,)):
        yield git_dir.joinpath("annex", "objects", *folders, name, name)


def common_git_dir(folder: Path) -> Path:
    """Where a repository on this machine keeps its objects, found by reading files: no git runs in it.

    It is the folder itself where that is a bare repository.
    """
    git_dir = folder / ".git"
    if git_dir.is_file():  # of a submodule or a linked work tree
        git_dir = folder / _first_line(git_dir).removeprefix("gitdir:").strip()
    if not git_dir.is_dir():
        git_dir = folder
    common = git_dir / "commondir"
    return git_dir / _first_line(common) if common.is_file() else git_dir


def _first_line(path: Path) -> str:
    with path.open("rb") as stream:
        return os.fsdecode(stream.readline(4096)).strip()


def _get(repository: str | os.PathLike[str], key: str, git_dir: Path, *, lacking: str) -> None:
    # git-annex waits for ever for a server that says nothing. Its own annex.stalldetection sees no server that never
    # began to answer, and moves transfers to processes that outlive a killed job.
    words = ["get", f"--key={key}", "--json", "--json-error-messages"]
    try:
        result = _annex(repository, *words, timeout_s=_SILENCE_S, progress=lambda: _received(git_dir))
    except OverdueError:
        silent = f"the remote sent nothing for {_SILENCE_S:g} s"
        raise AnnexError(f"{silent}. {_remedy(silent, repository, key)}") from None
    if result.returncode == 0:
        return
    said = "; ".join(filter(None, (lacking, _said(result))))
    if re.search("not enough free space|no space left|quota exceeded", said, re.IGNORECASE):
        raise AnnexError(f"{said}. Free space on the disk of {repository} and try again", lasting=True)
    if "Verification of content failed" in said:
        raise _damaged_at_remote("not the hash and size of its key")
    # Of some remotes git-annex says no more than "failed"; what it left tells damage from a broken line.
    if came := _came(_partial(git_dir, key), key):
        said = f"{came} ({said})"
    raise AnnexError(f"{said}. {_remedy(said, repository, key)}")


def _received(git_dir: Path) -> set[tuple[str, int]]:
    """The files that are being received, with their bytes; git-annex keeps them apart until they are whole."""
    received = set()
    for folder in ("tmp", "othertmp"):
        for parent, _, names in os.walk(git_dir / "annex" / folder):
            for path in (os.path.join(parent, name) for name in names):
                with contextlib.suppress(OSError):  # it became whole just now
                    received.add((path, os.lstat(path).st_size))
    return received


def _came(partial: Path, key: str) -> str:
    """How much of a content came, '' where nothing did; DamagedError when all of it came and it is another content."""
    came = partial.stat().st_size if partial.exists() else 0
    if came == 0:
        return ""
    pinned = _parse_key(key)["bytes"]
    if pinned is None or came < int(pinned):
        return f"only {came} of {pinned or 'an unknown number of'} bytes came"
    try:
        verify_content(partial, key)
    except DamagedError as error:
        raise _damaged_at_remote(str(error).removeprefix(f"{partial}: ")) from None
    return ""


def _damaged_at_remote(what: str) -> DamagedError:
    return DamagedError(
        f"what the remote sent is not the pinned content ({what}). Try again, on a network that asks for no login page;"
        f" {_REPORT}"
    )


def _said(result: subprocess.CompletedProcess[bytes]) -> str:
    """What git-annex gave as reasons, on one line, once each; which remotes it was not to use is no reason."""
    reasons: dict[str, None] = {}
    for line in result.stdout.splitlines():
        with contextlib.suppress(ValueError):
            report = json.loads(line)
            notes = [*report.get("error-messages", ()), *report.get("note", "").splitlines()]
            reasons.update(dict.fromkeys(note.strip() for note in notes if note.strip()))
    beside = ("from ", "(Note that these git remotes have annex-ignore set")
    return "; ".join(reason for reason in reasons if not reason.startswith(beside)) or last_lines(result.stderr)


def _remedy(said: str, repository: str | os.PathLike[str], key: str) -> str:
    whereis = f"git -C {repository} annex whereis --key={key}"
    if re.search("denied|forbidden|unauthorized|authentication|credential", said, re.IGNORECASE):
        by_hand = f"git -C {repository} annex get --key={key}"
        return f"You have no access. Ask the owner for it, or log in where you can be asked ({by_hand}), then try again"
    if "not available" in said and "is not there" not in said:
        return f"No remote that the dataset knows has it. {whereis} names who should; enable or add that remote"
    return f"Check the network and that the remote still exists, then try again; {whereis} names who has it; {_REPORT}"


def _annex(
    repository: str | os.PathLike[str],
    command: str,
    *arguments: str,
    timeout_s: float = _QUICK_S,
    progress: Callable[[], object] | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    # The location log stays in git-annex's journal: a commit per scan got would make the clone grow.
    settings = ("-c", "annex.alwayscommit=false", *_NO_TORRENTS)
    words = ["git", "-C", repository, *settings, "annex", command, *arguments]
    return run_tool(words, timeout_s=timeout_s, progress=progress, check=check)


def _location(repository: str | os.PathLike[str], key: str) -> Path | None:
    result = _annex(repository, "contentlocation", key)
    found = os.fsdecode(result.stdout.rstrip(b"\n"))
    return Path(repository, found) if result.returncode == 0 and found else None


def _open_location(repository: str | os.PathLike[str], key: str) -> IO[bytes]:
    found = _location(repository, key)
    if found is None:
        raise AnnexError("git-annex got the content but does not find it. Try again")
    return open(found, "rb")


def _partial(git_dir: Path, key: str) -> Path:
    return git_dir / "annex" / "tmp" / _file_name(key)


def _file_name(key: str) -> str:
    """What git-annex calls the file of a content."""
    escapes = {"&": "&a", "%": "&s", ":": "&c", "/": "%"}
    return re.sub("[&%:/]", lambda found: escapes[found[0]], key)


def _copy(reading: IO[bytes], target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    with open(target, "wb") as writing:
        with contextlib.suppress(OSError, AttributeError):
            while os.copy_file_range(reading.fileno(), writing.fileno(), 2**30):
                pass
        # What could not be shared is copied; a full disk shows itself here.
        reading.seek(writing.seek(0, os.SEEK_END))
        shutil.copyfileobj(reading, writing, 2**20)


def _copy_blob(repository: str | os.PathLike[str], key: str, target: Path) -> None:
    words = ["git", "-C", repository, "cat-file", "blob", _parse_key(key)["hash"]]
    target.write_bytes(run_tool(words, timeout_s=600).stdout)
    verify_content(target, key)


def _refuse_other_size(path: str | os.PathLike[str], size: int, key: re.Match[str]) -> None:
    if key["bytes"] is not None and size != int(key["bytes"]):
        raise DamagedError(f"{path}: {size} bytes, but its key says {key['bytes']}")


def _hasher(key: re.Match[str], size: int) -> hashlib._Hash | None:
    """The hash function of a key's backend; None for the backends that have none, or one that Python does not know."""
    if key["backend"] == "GIT":
        hasher = hashlib.new("sha1" if len(key["hash"]) == 40 else "sha256", usedforsecurity=False)
        hasher.update(b"blob %d\0" % size)
        return hasher
    name = key["backend"].removesuffix("E").lower()
    blake = re.fullmatch(r"blake2([bs])(\d{1,3})", name, re.ASCII)
    if blake and 8 <= int(blake[2]) <= (512 if blake[1] == "b" else 256):
        return getattr(hashlib, f"blake2{blake[1]}")(digest_size=int(blake[2]) // 8)
    known = re.fullmatch(r"md5|sha\d+|sha3_\d+", name) and name in hashlib.algorithms_available
    return hashlib.new(name, usedforsecurity=False) if known else None


def _read_gzip_to_end(path: str | os.PathLike[str]) -> None:
    try:
        with gzip.open(path, "rb") as stream:
            while stream.read(2**20):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        # Size and hash were right, so getting it again would give the same.
        message = f"{path}: a damaged gzip file ({error}), and it was published so: {_REPORT}"
        raise DamagedError(message, lasting=True) from None
