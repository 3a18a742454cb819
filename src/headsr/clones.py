"""A dataset's clone: made, brought up to date, and told from where contents may come. A dataset never starts a program.

git-annex would enable whatever remote a dataset asks it to, and many kinds of remotes are programs that the dataset
names. So a clone is made without enabling any, and then those are enabled that need no program but git, git-annex and
ssh: S3, the web, httpalso, and git over http(s), ssh or from a folder. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headsr import annex
from headsr.files import set_mode
from headsr.words import is_plain, shown

_FETCH_S = 3600
_REFS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_SUPERDATASET = "https://datasets.datalad.org/"  # what DataLad means by ///
_ENABLED = {"S3": "annex-s3", "httpalso": "annex-httpalso", "web": "annex-web"}  # kind to git-annex's mark of it
_NAME = re.compile(r"(?!(?:origin|web|bittorrent)$)[A-Za-z0-9][A-Za-z0-9_.-]*")
_UUID = re.compile(r"[A-Za-z0-9-]{1,64}")


class _Remote(NamedTuple):
    """A remote that a dataset asks to be enabled: its UUID in git-annex's log, and its settings there."""

    uuid: str
    settings: dict[str, str]

    @property
    def name(self) -> str:
        return self.settings.get("name") or self.settings.get("sameas-name", "")

    @property
    def kind(self) -> str:
        return self.settings.get("type", "")


def sync_clone(url: str, clone: Path, *, commit: str = "") -> list[str]:
    """Clone a dataset without any content, or bring its clone up to date; half a clone is never left.

    Nothing is asked of the network where the clone has ``commit`` already. Returns which remotes the dataset would have
    had enabled and were left off, one sentence each. Raises AnnexError; its message names the address and the way out.
    """
    address = address_of(url)
    if clone.is_dir() and not any(clone.iterdir()):
        clone.rmdir()
    if not clone.exists():
        return _make(address, clone)
    if not (clone / ".git").exists():
        raise annex.AnnexError(f"{clone} is in the way: it is not a clone. Move it away and pin again")
    git(clone, "rev-parse", "--git-dir")  # of another user's clone it says how to allow it; settings just seem unset
    forgotten = _forget_remotes(clone)
    if config(clone, "headsr.url") != address or not (commit and commit_of(clone, commit)):
        _update(clone, address)
    left_off = _prepare(clone)
    lost = [name for name in forgotten if not _has_remote(clone, name)]
    return [*left_off, *map(_lost, lost)]


def add_source(clone: Path, name: str, address: str) -> None:
    """Let contents of a clone also come from the repository at an address (``address_of``); nothing else does."""
    git(clone, "config", f"remote.{name}.url", address)
    git(clone, "config", f"remote.{name}.skipFetchAll", "true")
    _prepare(clone)


def address_of(url: str) -> str:
    """The url as git takes it: a local path made absolute and checked, and nothing that needs a program of its own.

    AnnexError says why another url cannot be used.
    """
    local = Path(os.path.expanduser(os.path.expandvars(url.removeprefix("file://"))))
    if os.path.exists(local):
        _refuse_plain(local, url)
        return str(local.resolve())
    if url.startswith("///"):
        return _SUPERDATASET + url.removeprefix("///")
    if _transport(url) in ("http", "https", "ssh"):
        return url
    if not re.match(r"[A-Za-z0-9+.@_-]+:", url) or annex.local_folder(url):
        raise annex.AnnexError(f"{url} does not exist. Correct the url in the dataset's entry")
    raise annex.AnnexError(
        f"{url} is reached by a program of its own, and headsr clones over http, https or ssh and from a folder. "
        "Clone it yourself (datalad clone), get its scans there, and give that folder as the url in the dataset's entry"
    )


def commit_of(clone: Path, revision: str) -> str | None:
    """The full hash of a commit that a clone has under some name."""
    words = ["git", "-C", clone, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    return annex.run_tool(words, check=False).stdout.decode().strip() or None


def config(clone: Path, setting: str) -> str:
    """One of git's settings in a clone, '' where it is not set."""
    words = ["git", "-C", clone, "config", "--get", setting]
    return os.fsdecode(annex.run_tool(words, check=False).stdout).rstrip("\n")


def git(clone: Path, *arguments: str, timeout_s: float = 120) -> str:
    """What git says in a clone; AnnexError where it fails."""
    return os.fsdecode(annex.run_tool(["git", "-C", clone, *arguments], timeout_s=timeout_s).stdout)


def _make(address: str, clone: Path) -> list[str]:
    partial = clone.with_name(f".{clone.name}.partial")
    _remove(partial)
    clone.parent.mkdir(parents=True, exist_ok=True)
    with annex.leaving_when_told():
        try:
            annex.run_tool(["git", "init", "--quiet", partial.absolute()])
            git(partial, "config", "headsr.remotes", "chosen")
            _update(partial, address)
            annex.run_tool(["git", "-C", partial, "remote", "set-head", "origin", "--auto"], check=False)
            left_off = _prepare(partial)
            partial.rename(clone)
            return left_off
        finally:
            _remove(partial)


def _remove(folder: Path) -> None:
    """Remove a half clone, though git-annex write-protects the folders of its content.

    AnnexError for a link and for a folder that is no clone: not headsr's to remove, nor to change the modes of.
    """
    began = not folder.is_symlink() and folder.is_dir() and ((folder / ".git").exists() or not any(folder.iterdir()))
    if os.path.lexists(folder) and not began:
        raise annex.AnnexError(f"{folder}: is in the way: it is no clone that headsr began. Move it away and pin again")
    for parent, _, _ in os.walk(folder):
        set_mode(parent, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_plain(local: Path, url: str) -> None:
    if not local.is_dir():
        raise annex.AnnexError(f"{url} is a file, not a DataLad dataset. Name the dataset's folder as its url")
    bare = (local / "HEAD").is_file() and (local / "objects").is_dir()
    if not (local / ".git").exists() and not bare:
        bids = "" if any(local.glob("sub-*")) else ", and it holds no sub-* folder, so it is not BIDS either"
        raise annex.AnnexError(
            f"{url} is a plain folder, not a DataLad dataset{bids}. Make it one, in place and without changing the"
            f' scans: datalad create --force "{local}" && datalad save -d "{local}" -m "Scans as they are"'
            " --version-tag v1; then give v1 as its version"
        )


def _transport(address: str) -> str:
    """By what git reaches an address: http, https, ssh or file; '' where it would start a program that this names.

    A host that begins with a dash would be an option of ssh.
    """
    if match := re.match(r"(https?|ssh)://(?:[^/@]*@)?(?![-@/])", address):
        return match[1]
    if annex.local_folder(address):
        return "file"
    return "ssh" if re.match(r"(?:[A-Za-z0-9._-]+@)?(?!-)[A-Za-z0-9._-]+:(?!:|//)", address) else ""


def _update(clone: Path, address: str) -> None:
    """Fetch all branches and tags from an address, which becomes the clone's origin, and no content."""
    for candidate in (candidates := list(_candidates(address))):
        try:
            git(clone, "fetch", "--quiet", "--prune", "--no-recurse-submodules", candidate, *_REFS, timeout_s=_FETCH_S)
        except annex.AnnexError as error:
            if candidate != candidates[-1] and not isinstance(error, annex.OverdueError):
                continue
            way_out = "Check the url in the dataset's entry, the network and your access, then pin again"
            if "safe.directory" in str(error):  # git's own words say how, and a translation of them holds this one
                way_out = "It belongs to another user of this machine, and git wants you to allow that; then pin again"
            raise annex.AnnexError(f"{address} could not be cloned or brought up to date. {way_out}. {error}") from None
        break
    if config(clone, "headsr.url") != address:  # what git-annex knew is about the old address
        for setting in ("annex-uuid", "annex-ignore"):
            annex.run_tool(["git", "-C", clone, "config", "--unset-all", f"remote.origin.{setting}"], check=False)
    git(clone, "config", "remote.origin.url", candidate)
    git(clone, "config", "remote.origin.fetch", _REFS[0])
    git(clone, "config", "headsr.url", address)


def _candidates(address: str) -> Iterator[str]:
    """A dataset that is published by a mere web server is the folder .git there."""
    yield address
    if _transport(address) in ("http", "https") and not address.endswith(".git"):
        yield f"{address.rstrip('/')}/.git"


def _prepare(clone: Path) -> list[str]:
    """Make the clone git-annex's where the dataset is, enable its remotes, and say which were left off."""
    if commit_of(clone, "refs/remotes/origin/git-annex") is None:
        return []
    left_off = []
    for remote in _asked_for(clone):
        if why := _enable(clone, remote):
            left_off.append(_left_off(clone, remote, why))
    addresses = annex.remote_addresses(clone)
    for name, address in addresses.items():
        if annex.local_folder(address):  # read as data; git-annex would work in it
            git(clone, "config", f"remote.{name}.annex-ignore", "true")
    if not config(clone, "annex.uuid"):
        git(clone, "annex", "init", "--quiet", "--no-autoenable", "headsr")
    for name, address in addresses.items():
        if not (annex.local_folder(address) or config(clone, f"remote.{name}.annex-uuid")):
            _ask_for_contents(clone, name)
    return left_off


def _ask_for_contents(clone: Path, name: str) -> None:
    """Let git-annex ask a git server once whether it has contents, which GitHub has not.

    A fetch would ask as well, but take a network that is away for a no, and never ask again.
    """
    annex.run_tool(["git", "-C", clone, "annex", "enableremote", name], check=False)


def _asked_for(clone: Path) -> list[_Remote]:
    """The remotes that a dataset asks to be enabled, from git-annex's log of them: the newest line of each is true."""
    words = ["git", "-C", clone, "cat-file", "blob", "refs/remotes/origin/git-annex:remote.log"]
    newest: dict[str, tuple[float, _Remote]] = {}
    for line in os.fsdecode(annex.run_tool(words, check=False).stdout).splitlines():
        uuid, *pairs = line.split(" ")
        settings = {key: _unescaped(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        at = _seconds(settings.get("timestamp", ""))
        if _UUID.fullmatch(uuid) and (uuid not in newest or at >= newest[uuid][0]):
            newest[uuid] = (at, _Remote(uuid, settings))
    return [remote for _, remote in newest.values() if remote.settings.get("autoenable") == "true"]


def _unescaped(value: str) -> str:
    return re.sub(r"&(\d{1,6});", lambda found: chr(int(found[1])), value)


def _seconds(timestamp: str) -> float:
    try:
        return float(timestamp.removesuffix("s"))
    except ValueError:
        return 0.0


def _enable(clone: Path, remote: _Remote) -> str:
    """Have git-annex get contents from a remote; '' or why not."""
    if why := _refusal(remote):
        return why
    known = config(clone, f"remote.{remote.name}.annex-config-uuid") or config(
        clone, f"remote.{remote.name}.annex-uuid"
    )
    location = remote.settings.get("location", "")
    if known or config(clone, f"remote.{remote.name}.url"):
        same = known == remote.uuid or config(clone, f"remote.{remote.name}.url") == location != ""
        return "" if same else "another remote has its name"
    settings = {"skipFetchAll": "true"}
    if remote.kind == "git":
        settings["url"] = location
    else:
        settings |= {_ENABLED[remote.kind]: "true", "annex-uuid": remote.settings.get("sameas-uuid", remote.uuid)}
        settings["annex-verified"] = "verified"  # newer git-annex asks a person, or this function
        if "sameas-uuid" in remote.settings:
            settings["annex-config-uuid"] = remote.uuid
    for setting, value in settings.items():
        git(clone, "config", f"remote.{remote.name}.{setting}", value)
    return ""


def _refusal(remote: _Remote) -> str:
    """Why a remote is not enabled, '' where it may be."""
    if not _NAME.fullmatch(remote.name):
        return "it has no plain name"
    if not all(map(is_plain, remote.settings.values())):  # git cannot be told them, or takes them for more
        return "its settings hold characters that no text has"
    if remote.kind == "external":
        return f"it would start the program git-annex-remote-{remote.settings.get('externaltype', '')}"
    if remote.kind == "git" and not _transport(location := remote.settings.get("location", "")):
        return f"{location} is no address of http, https, ssh or a folder"
    if remote.kind not in ("git", *_ENABLED):
        return f"remotes of type {remote.kind} are not among {', '.join(_ENABLED)} and git"
    if remote.settings.get("encryption", "none") != "none":
        return "it is encrypted"
    return ""


def _has_remote(clone: Path, name: str) -> bool:
    words = ["git", "-C", clone, "config", "--get-regexp", rf"^remote\.{re.escape(name)}\."]
    return annex.run_tool(words, check=False).returncode == 0


def _lost(name: str) -> str:
    return shown(
        f"the remote {name} was taken off the clone, which an earlier headsr made: the dataset may have enabled it. If "
        "you did, enable it again"
    )


def _left_off(clone: Path, remote: _Remote, why: str) -> str:
    by_hand = f"git -C {clone} annex enableremote {remote.uuid}"
    return shown(
        f"the dataset's remote {remote.name or remote.uuid} was left off: {why}. Scans that only it has cannot be "
        f"fetched; if you trust the dataset, enable it yourself ({by_hand})"
    )


def _forget_remotes(clone: Path) -> list[str]:
    """Of a clone in which the dataset enabled what it liked, as those of earlier versions, leave the origin alone.

    Returns the names of the remotes that were taken off.
    """
    if config(clone, "headsr.remotes"):
        return []
    words = ["git", "-C", clone, "config", "--null", "--name-only", "--get-regexp", r"^remote\."]
    settings = os.fsdecode(annex.run_tool(words, check=False).stdout).split("\0")
    names = {one.removeprefix("remote.").rpartition(".")[0] for one in settings if one} - {"origin"}
    for name in sorted(names):
        git(clone, "config", "--remove-section", f"remote.{name}")
    git(clone, "config", "headsr.remotes", "chosen")
    return sorted(names)
