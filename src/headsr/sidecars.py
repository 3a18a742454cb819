"""What the JSON sidecars of a dataset say of its scans, by BIDS' inheritance. Standard library only."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from headsr.annex import TreeFile
from headsr.scans import SUFFIXES
from headsr.words import shown

_log = logging.getLogger(__name__)
_THICKEST_MM = 1000
_SIDECAR = re.compile(rf"(?:.*/)?(?:[^/]*_)?(?:{'|'.join(SUFFIXES)})\.json")


class Sidecars:
    """The sidecars among the files of a dataset, by the scans that they are about."""

    def __init__(self, files: Iterable[TreeFile]) -> None:
        self._by_folder: dict[str, list[tuple[frozenset[str], str, TreeFile]]] = defaultdict(list)
        for file in files:
            if is_sidecar(file.path):
                *entities, suffix = os.path.basename(file.path).removesuffix(".json").split("_")
                self._by_folder[os.path.dirname(file.path)].append((frozenset(entities), suffix, file))
        for entries in self._by_folder.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    def about(self, stem: str, folder: str) -> Iterator[TreeFile]:
        """Those that apply to the scan of this BIDS name in this folder, from the one that counts most.

        They have its suffix and no entities but its own, and lie in its folder or above it: the nearer count more, and
        in one folder those that say more.
        """
        *entities, suffix = stem.split("_")
        while True:
            for about, kind, file in self._by_folder.get(folder, ()):
                if kind == suffix and about <= set(entities):
                    yield file
            if not folder:
                return
            folder = os.path.dirname(folder)


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


def _metadata(file: TreeFile, texts: Mapping[str, bytes]) -> dict[str, object] | None:
    text = texts.get(file.key, file.content)
    if text is None:
        return None
    try:
        # Names in another encoding than JSON's are no reason to lose the numbers beside them.
        content = json.loads(text.decode("utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as error:
        _log.warning("%s is not JSON (%s): its slice thickness counts as unknown", file.path, shown(str(error)))
        return None
    return content if isinstance(content, dict) else None


def _millimetres(metadata: Mapping[str, object] | None, path: str) -> str:
    value = (metadata or {}).get("SliceThickness")
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _THICKEST_MM:
        return f"{value:.6g}"
    _log.warning("%s: SliceThickness %s is no size in mm: it counts as unknown", path, shown(repr(value)[:80]))
    return ""
