"""What the JSON sidecars of a dataset say of its scans, by BIDS' inheritance. Standard library only."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headsr.annex import TreeFile
from headsr.files import parse_metadata
from headsr.scans import SUFFIXES
from headsr.words import shown

_log = logging.getLogger(__name__)
_THICKEST_MM = 1000
_NUMBER = re.compile(r"\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?\s*", re.ASCII)
_SIDECAR = re.compile(rf"(?:.*/)?(?:[^/]*_)?(?:{'|'.join(SUFFIXES)})\.json")


class Sidecars:
    """The sidecars among the files of a dataset, by the scans that they are about."""

    def __init__(self, files: Iterable[TreeFile]) -> None:
        self._by_folder: dict[str, dict[str, TreeFile]] = defaultdict(dict)
        for file in files:
            if is_sidecar(file.path):
                self._by_folder[os.path.dirname(file.path)][os.path.basename(file.path)] = file

    def about(self, stem: str, folder: str) -> Iterator[TreeFile]:
        """Those that apply to the scan of this BIDS name in this folder, from the one that counts most.

        They lie in its folder or above it, and the nearer count more.
        """
        while True:
            files = self._by_folder.get(folder, {})
            yield from (files[name] for name in about(stem, files))
            if not folder:
                return
            folder = os.path.dirname(folder)


def about(stem: str, names: Iterable[str], *, ending: str = ".json") -> list[str]:
    """Which files of one folder are about the image of this BIDS name, from the one that says most of it.

    They have its suffix and no entities but its own (BIDS' inheritance principle).
    """
    *entities, suffix = stem.split("_")
    parts = {name: name.removesuffix(ending).split("_") for name in names if name.endswith(ending)}
    fitting = [name for name, own in parts.items() if own[-1] == suffix and set(own[:-1]) <= set(entities)]
    return sorted(fitting, key=lambda name: -len(parts[name]))


def is_sidecar(path: str) -> bool:
    """Whether a file may be the sidecar of scans: ``sub-01/anat/sub-01_T1w.json``, ``acq-thick_T1w.json``."""
    return _SIDECAR.fullmatch(path) is not None


def thickness_of(sidecars: Iterable[TreeFile], texts: Mapping[str, bytes]) -> str:
    """Slice thickness in mm that the first of some sidecars says that says one, '' where it cannot be known.

    ``texts`` are contents of those that git does not hold, by key. One that cannot be read may overrule those after it:
    unknown.
    """
    for file in sidecars:
        metadata = _metadata(file, texts)
        if metadata is None or "SliceThickness" in metadata:
            return _millimetres(metadata, file.path)
    return ""


def size_in_mm(said: Any) -> float | None:
    """A size that a sidecar says: a finite number above zero, also as a text, as some converters write every number.

    None for anything else.
    """
    if isinstance(said, str):
        said = float(said) if _NUMBER.fullmatch(said) else None
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not (0 < said < math.inf):
        return None
    return float(said)


def _metadata(file: TreeFile, texts: Mapping[str, bytes]) -> dict[str, Any] | None:
    text = texts.get(file.key, file.content)
    if text is None:
        return None
    try:
        return parse_metadata(text)
    except ValueError as error:
        _log.warning("%s is not JSON (%s): its slice thickness counts as unknown", file.path, shown(str(error)))
        return None


def _millimetres(metadata: Mapping[str, Any] | None, path: str) -> str:
    said = (metadata or {}).get("SliceThickness")
    if said is None:
        return ""
    size = size_in_mm(said)
    if size is not None and size <= _THICKEST_MM:
        return f"{size:.6g}"
    _log.warning("%s: SliceThickness %s is no size in mm: it counts as unknown", path, shown(repr(said)[:80]))
    return ""
