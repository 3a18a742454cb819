"""Outputs appear whole or not at all."""

from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 64 * 2**20  # of a text that is read whole; what JSON stands for in memory is up to twenty times as much
_MOST_DIGITS = 300  # of a whole number: it must be a float as well


class UnreadableError(ValueError):
    """A file is not what it should be. The message names it, what is wrong and the way out."""


class NotAFileError(UnreadableError):
    """What was named as an input is a pipe or a device. The message names it and the way out."""


class UnwritableError(OSError):
    """A file cannot be written, or not be reached, whatever would be in it. The message names it and the way out."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


_AGAIN = "and run the same again"
_PERMIT = f"permission denied. Change who may use it and its folder, {_AGAIN}"
_UNWRITABLE = {
    errno.ENOSPC: f"the disk is full. Make room on it {_AGAIN}",
    errno.EDQUOT: f"your quota on this disk is used up. Make room {_AGAIN}",
    errno.EFBIG: f"it would be larger than a file of yours may be (ulimit -f). Raise that {_AGAIN}",
    errno.EROFS: f"the disk may only be read. Have it mounted for writing {_AGAIN}",
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
}
_TMPDIR = f"or name another with TMPDIR, {_AGAIN}"
# A file system without modes (a share of Windows, a stick) refuses to set them: there every file has those that it has.
_WITHOUT_MODES = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# In JSON as converters write it, beside texts, which are left alone: a comma at an end, and how C prints no number.
_SLIPS = re.compile(
    r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|(?P<comma>,)(?=\s*[}\]])|(?P<sign>[+-]?)\b(?:(?P<nan>nan)|inf(?:inity)?)\b',
    re.DOTALL | re.IGNORECASE,
)
_IN_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors says it so, in an error of its own


def unwritable(error: BaseException, path: str | os.PathLike[str]) -> UnwritableError | None:
    """What an error says of a disk that is full or not to be written on; None for an error of another kind.

    ``path`` is what was being written, where the error itself names no file.
    """
    if isinstance(error, UnwritableError):
        return error
    if not isinstance(error, OSError):
        found = _IN_RUST.search(str(error))
        error = OSError(int(found[1]), "") if found else OSError()
    said = _UNWRITABLE.get(error.errno)
    return said and UnwritableError(error.errno, said, os.fspath(error.filename or path))


_completed: list[Path] = []


def completed() -> tuple[Path, ...]:
    """Every path that ``whole`` has put in place in this process, in that order."""
    return tuple(dict.fromkeys(_completed))


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a partial path beside ``path`` to write to; in place when the block ends, removed if it fails.

    Raises UnwritableError naming ``path`` where the disk is full or not to be written on.
    """
    target = Path(path)
    try:
        with _in_place_when_done(target) as partial:
            yield partial
    except Exception as error:
        said = unwritable(error, target)
        if said is None or said is error:
            raise
        said.filename = said.filename.replace(_partial_of(target).name, target.name)
        raise said from error


def _partial_of(target: Path) -> Path:
    # On a disk that nodes share, a process's number alone is not its own. The name keeps its endings, since libraries
    # choose the format by them.
    return target.with_name(f".{socket.gethostname()}.{os.getpid()}.partial.{target.name}")


@contextmanager
def _in_place_when_done(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(target)
    partial.unlink(missing_ok=True)  # of an earlier process of this number, or a link: never written through
    try:
        yield partial
        # Some libraries write files that only their owner may read; a lab shares its results as its umask says.
        set_mode(partial, 0o666 & ~_umask())
        partial.replace(target)
        _completed.append(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder for the block alone, in the one that TMPDIR names.

    Raises UnwritableError naming that one, and how much of it is free, where it is full or not to be written on.
    """
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError as error:  # it names all that it tried
        raise UnwritableError(error.errno, f"make room in one of them, {_TMPDIR}", error.strerror) from None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"headsr-{purpose}-", dir=parent))
    except OSError as error:
        raise _unusable(error, parent) from error
    try:
        yield folder
    except Exception as error:
        said = unwritable(error, "")
        if said is None or folder not in Path(said.filename).parents:
            raise
        raise _unusable(said, parent) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unusable(error: OSError, parent: str) -> UnwritableError:
    """What an error in the temporary folder means, with how much of it is free now."""
    how = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cannot be written in"
    usage = shutil.disk_usage(parent)
    free, total = (f"{size / 2**20:.3g} MiB" for size in (usage.free, usage.total))
    words = f"the temporary folder {how}: {free} of {total} are free. Make room there, {_TMPDIR}"
    return UnwritableError(error.errno, words, parent)


def set_mode(path: str | os.PathLike[str], mode: int) -> None:
    """Who may use a file or a folder, where its file system knows of that."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in _WITHOUT_MODES:
            raise


def partials_of(path: str | os.PathLike[str]) -> list[Path]:
    """What ``whole`` left half-written beside ``path`` in processes that were killed, and has in work in others."""
    target = Path(path)
    name = re.compile(rf"\..+\.\d+\.partial\.{re.escape(target.name)}")
    return sorted(beside for beside in target.parent.glob(".*") if name.fullmatch(beside.name))


def abandoned(path: str | os.PathLike[str]) -> list[Path]:
    """Of ``partials_of`` those whose process has ended, as far as this machine can tell."""
    began = re.compile(rf"\.{re.escape(socket.gethostname())}\.(\d+)\.partial\..+")
    named = ((partial, began.fullmatch(partial.name)) for partial in partials_of(path))
    return [partial for partial, known in named if known and not Path("/proc", known[1]).exists()]


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write sorted, indented JSON whole or not at all; NaN and infinity are refused, for JSON has neither."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes. NotAFileError for a pipe, which may never answer, and a device, without end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise NotAFileError(f"{path}: is a pipe or a device, not a file. Write its content into a file and name that")


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text of a file (``open_file``). UnreadableError for what is no text in this encoding, or too long."""
    with open_file(path) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"{path}: has more than {MOST_BYTES:,} bytes. Is it the file that you mean?")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"{path}: is no text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8"
        ) from None


def read_rows(
    path: str | os.PathLike[str], *, delimiter: str = "\t", stripped: bool = False
) -> tuple[tuple[str, ...], list[tuple[str, dict[str, str]]]]:
    """The columns of a table, and of each row where it stands (``path, line 2``) and its values by column.

    A mark of the byte order at its begin, as spreadsheets write it, is no part of it.
    UnreadableError as ``read_text``, and for a row that does not have as many values as there are columns;
    ``stripped`` lets it lack empty ones at its end.
    """
    rows = csv.reader(io.StringIO(read_text(path, "utf-8-sig"), newline=""), delimiter=delimiter)
    try:
        columns = tuple(next(rows, ()))
        found = []
        for row in filter(None, rows):
            where = f"{path}, line {rows.line_num}"
            row += [""] * (len(columns) - len(row) if stripped else 0)
            if len(row) != len(columns):
                raise UnreadableError(f"{where}: the row does not have {len(columns)} columns. Repair that line")
            found.append((where, dict(zip(columns, row, strict=True))))
    except csv.Error as error:
        raise UnreadableError(
            f"{path}, line {rows.line_num}: cannot be read as a table ({error}). Repair that line"
        ) from None
    return columns, found


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON file. UnreadableError as ``read_text``, and for what ``parse_json`` refuses."""
    try:
        return parse_json(read_text(path))
    except UnreadableError:
        raise
    except ValueError as error:
        raise UnreadableError(
            f"{path}: not valid JSON ({error}). Move it away and run again to make it anew"
        ) from error


def parse_json(text: str) -> Any:
    """What a JSON text stands for; ValueError for one that is no JSON.

    NaN and infinity are none, nor is a number that no float can be, nor half a character (a lone surrogate): they
    would fail where they are computed with or written, far from their file.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its blocks lie too deep in one another") from None
    except UnicodeEncodeError:
        raise ValueError("half a character, \\ud800 to \\udfff") from None
    return content


def parse_metadata(content: bytes) -> dict[str, Any]:
    """What the JSON sidecar of a scan says; ValueError for one that says nothing that can be understood.

    Converters write more than JSON allows: a name in Latin-1, a line that breaks within a text, a comma before an end,
    NaN and infinity. None of these is a reason to lose what stands beside it; numbers that are none stay such.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    try:
        metadata = json.loads(_SLIPS.sub(_without_slip, text), strict=False, parse_int=_whole)
    except RecursionError:
        raise ValueError("its blocks lie too deep in one another") from None
    if not isinstance(metadata, dict):
        raise ValueError("it holds no block of keys and values")
    return metadata


def _without_slip(found: re.Match[str]) -> str:
    if found["comma"]:
        return ""
    if found["sign"] is None:
        return found[0]
    return "NaN" if found["nan"] else f"{found['sign'].strip('+')}Infinity"


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def is_plain_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a NIfTI image that nobody compressed, whatever its name says."""
    with open_file(path) as stream:
        size = stream.read(4)
    return any(int.from_bytes(size, order) in (348, 540) for order in ("little", "big"))


def sidecar_of(path: str | os.PathLike[str]) -> Path:
    """The JSON file beside a NIfTI file."""
    return Path(str(path).removesuffix(".gz").removesuffix(".nii") + ".json")


def head_mask_of(path: str | os.PathLike[str]) -> Path:
    """The mask beside a low-resolution scan of its samples that see the head.

    ``sub-01_desc-axial_T1w.nii.gz`` -> ``sub-01_label-head_desc-axialT1w_mask.nii.gz``. Raises ValueError for a name
    of another form.
    """
    path = Path(path)
    stem, found, described = path.name.partition("_desc-")
    if not found or described.count("_") != 1:
        raise ValueError(f"{path}: the name of a low-resolution scan ends in _desc-VIEW_SUFFIX.nii.gz")
    view, _, suffix = described.removesuffix(".nii.gz").partition("_")
    return path.with_name(f"{stem}_label-head_desc-{view}{suffix}_mask.nii.gz")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's content."""
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_files(folder: str | os.PathLike[str], *, leaving_out: Collection[str] = ()) -> list[Path]:
    """Every file below a folder, in the order of their paths, without what in the folder itself is left out."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.relative_to(folder).parts[0] not in leaving_out)


def tree_hash(
    folder: str | os.PathLike[str], *, leaving_out: Collection[str] = (), known: Mapping[str, str] | None = None
) -> str:
    """Hex SHA-256 over the relative path and the content of every file of ``tree_files``.

    ``known`` holds the SHA-256 of files, by relative path, that need not be read again.
    """
    tree, known = hashlib.sha256(), known or {}
    for path in tree_files(folder, leaving_out=leaving_out):
        name = path.relative_to(folder).as_posix()
        tree.update(os.fsencode(f"{name}\0{known.get(name) or sha256_of(path)}\n"))
    return tree.hexdigest()
