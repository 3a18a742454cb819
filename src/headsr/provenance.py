"""What was made from what: one record per job, beside its log, and the content of files.

A record holds what Snakemake's own metadata hold and what they do not: the hash of every file that a job read and
wrote. It lies in the results tree, so it survives the loss of ``.snakemake`` and travels with the results.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headsr.files import UnreadableError, read_json, sha256_of, tree_files, write_json
from headsr.recipes.convert import RecipeError, build

STORE_MARK = "zarr.json"


class RecordError(ValueError):
    """A record cannot be read. The message names it."""


@dataclass(frozen=True)
class Content:
    """What a file holds: its SHA-256 and its size in bytes; for the mark of a Zarr store, the size of all of it."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Record:
    """What one job made, and from what. Paths are relative to the results folder.

    ``stage`` holds the versions of the job's stage and parts by name (headsr.stages; one number in records from before
    there were parts), ``params`` its other parameters
    as plain JSON data, ``sources`` the SHA-256 of each file that it read,
    ``outputs`` the content of each file that its rule declares, ``beside`` of the others that it wrote. ``version``
    and ``commit`` say which headsr it was, ``warnings`` what was logged as such; they are for people and
    are not compared.
    """

    rule: str
    stage: Any
    params: dict[str, Any]
    sources: dict[str, str]
    outputs: dict[str, Content]
    beside: dict[str, Content]
    version: str
    commit: str
    warnings: list[str] = field(default_factory=list)


def record_path(results: str | os.PathLike[str], log: str | os.PathLike[str]) -> Path:
    """Where a job's record lies, from its log: ``results/logs/x.log`` is recorded in ``results/records/x.json``."""
    return Path(results, "records", os.path.relpath(log, Path(results, "logs"))).with_suffix(".json")


def write_record(path: str | os.PathLike[str], record: Record) -> None:
    """Write a record whole or not at all."""
    write_json(path, asdict(record))


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Read a record; None where there is none. Raises RecordError naming a file that is not one."""
    try:
        return build(Record, read_json(path), "its content")
    except FileNotFoundError:
        return None
    except (RecipeError, UnreadableError) as error:
        raise RecordError(f"{path}: not a record of a job ({error})") from error


def commit_at(folder: str | os.PathLike[str]) -> str:
    """The commit that a folder of source code is at; '' where it is not in git, or there is no git."""
    words = ["git", "-C", os.fspath(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they come back from JSON, so that what was recorded and what is planned can be compared."""
    return json.loads(json.dumps(dict(params), default=str))


def content_of(path: str | os.PathLike[str]) -> Content:
    """The content of a file. The mark of a Zarr store stands for the store, whose hash it holds. May raise OSError."""
    return Content(sha256_of(path), size_of(path))


def contents_of(paths: Iterable[str | os.PathLike[str]], results: str | os.PathLike[str]) -> dict[str, Content]:
    """The content of several files, by their path in the results folder."""
    return {os.path.relpath(path, results): content_of(path) for path in paths}


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of a file or, for the mark of a Zarr store, of all its files. May raise OSError."""
    own = os.path.getsize(path)
    return sum(file.stat().st_size for file in tree_files(Path(path).parent)) if is_store_mark(path) else own


def is_store_mark(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the root ``zarr.json`` of a store, which is written last and stands for all of it."""
    return os.path.basename(path) == STORE_MARK
