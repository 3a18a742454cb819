"""People of a dataset that are datasets of their own in it: git's submodules, as DataLad makes them. Stdlib only."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headsr import annex
from headsr.clones import add_source, address_of, commit_of, config, sync_clone
from headsr.scans import FOLDER_PATTERN

_PERSONS = re.compile(rf"{FOLDER_PATTERN}(?:/anat)?")  # a person, a session or its anat folder


@dataclass(frozen=True)
class Tree:
    """A commit in a clone; its files lie below ``prefix`` (``sub-01/``, '' for the dataset itself) in the dataset."""

    prefix: str
    clone: Path
    commit: str


@dataclass
class Trees:
    """The dataset's own tree and those of its people, with the ``remarks`` of their remotes.

    ``others`` are the subdatasets that are not below a person, by path, with the address that the dataset has for each;
    ``lost`` are people of whose dataset nobody can know where it is, by path, and why.
    """

    found: list[Tree]
    remarks: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def trees_of(clone: Path, commit: str) -> Trees:
    """A dataset with its people's subdatasets, each cloned without content to its place in the dataset's clone.

    Raises AnnexError naming a subdataset that cannot be had now: a person who is left out today would come back without
    the split that the first pin gives.
    """
    trees = Trees([Tree("", clone, commit)])
    for tree in trees.found:  # grows: a subdataset may hold others
        _add_subdatasets_of(tree, trees)
    return trees


def clone_of(clone: Path, path: str) -> Path:
    """The clone that a file of a dataset comes from: the dataset's, or that of the innermost subdataset around it."""
    for folder in Path(path).parents:
        if (clone / folder / ".git").exists():
            return clone / folder
    return clone


def _add_subdatasets_of(tree: Tree, trees: Trees) -> None:
    commits = annex.subdatasets(tree.clone, tree.commit)
    urls = _urls(tree) if commits else {}
    for path, commit in commits.items():
        place = f"{tree.prefix}{path}"
        if not _PERSONS.fullmatch(place):
            trees.others[place] = urls.get(path, "")
            continue
        try:
            addresses = _addresses(tree.clone, path, urls.get(path, ""))
        except annex.AnnexError as error:
            trees.lost[place] = str(error)
            continue
        trees.remarks += _cloned(addresses, tree.clone / path, commit, place)
        trees.found.append(Tree(f"{place}/", tree.clone / path, commit))


def _cloned(addresses: Sequence[str], clone: Path, commit: str, place: str) -> list[str]:
    try:
        remarks = sync_clone(addresses[0], clone, commit=commit)
        if commit_of(clone, commit) is None:
            raise annex.AnnexError(f"{addresses[0]} lacks its commit {commit}. Have it published there (git push)")
        for address in addresses[1:]:
            add_source(clone, "published", address)
    except annex.AnnexError as error:
        raise annex.AnnexError(f"its subdataset {place}: {error}") from error
    return [f"{place}: {remark}" for remark in remarks]


def _urls(tree: Tree) -> dict[str, str]:
    """The address of every subdataset of a commit, by its path there."""
    words = ["git", "-C", tree.clone, "config", "--null", "--blob", f"{tree.commit}:.gitmodules", "--list"]
    settings: dict[str, dict[str, str]] = {}
    for entry in os.fsdecode(annex.run_tool(words, check=False).stdout).split("\0"):
        name, _, value = entry.partition("\n")
        module, _, setting = name.rpartition(".")
        settings.setdefault(module, {})[setting] = value
    return {one["path"]: one.get("url", "") for one in settings.values() if "path" in one}


def _addresses(clone: Path, path: str, url: str) -> list[str]:
    """Where a subdataset may be had: where it lies in a dataset of this machine, and where its dataset says it is.

    What lies there was often cloned without content. AnnexError where there is neither.
    """
    parent = config(clone, "headsr.url")
    local = annex.local_folder(parent)
    in_place = [address_of(str(local / path))] if local and (local / path / ".git").exists() else []
    try:
        named = address_of(_named(parent, url))
    except annex.AnnexError:
        if in_place:
            return in_place
        raise
    return list(dict.fromkeys([*in_place, named]))


def _named(parent: str, url: str) -> str:
    """The address that a dataset has for its subdataset, where it is one that a dataset may name."""
    if not url:
        raise annex.AnnexError("its dataset does not say in .gitmodules where it is")
    if url.startswith(("./", "../")):
        return _joined(parent, url)
    if not annex.local_folder(parent) and Path(url.removeprefix("file://")).is_absolute():
        raise annex.AnnexError(f"its dataset, which comes from elsewhere, says that it is in a folder here ({url})")
    return url


def _joined(parent: str, url: str) -> str:
    """As git reads an address that is relative to that of the dataset around it."""
    base = parent.rstrip("/").removesuffix("/.git")
    while url.startswith(("./", "../")):
        step, _, url = url.partition("/")
        base = base if step == "." else base.rpartition("/")[0]
    return f"{base}/{url}"
