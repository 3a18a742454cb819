"""Companions of scans in a dataset: lesion masks, found by their BIDS names. Standard library only."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headsr.annex import TreeFile
from headsr.scans import COMPANIONS, FOLDER_PATTERN, SCAN_PATTERN, SUFFIXES, Scan, companion_name, parse_companion

_log = logging.getLogger(__name__)
# BIDS calls a lesion's mask label-L; people write label-lesion. A mask in another space than its scan's is left alone.
_FILE = re.compile(
    rf"(?:.*/)?(?P<folder>{FOLDER_PATTERN})/anat/(?P<scan>{SCAN_PATTERN})(?:_space-orig)?"
    r"_label-(?:L|lesion[A-Za-z0-9]*)(?:_desc-(?P<desc>[A-Za-z0-9]+))?_mask\.nii(?:\.gz)?"
)


@dataclass(frozen=True)
class _Candidate:
    """A file that may be a companion of scans in ``folder``: those with all its entities, of ``suffix`` ('': any)."""

    path: str
    kind: str
    folder: str
    entities: frozenset[str]
    suffix: str

    @property
    def precision(self) -> tuple[int, bool]:
        """The more a name says, the nearer it is to its scan."""
        return len(self.entities), bool(self.suffix)

    def fits(self, scan: Scan) -> bool:
        """Whether it is about this scan's person, session, acquisition and contrast."""
        return (
            self.folder == scan.folder
            and self.entities <= set(scan.scan.split("_"))
            and self.suffix in ("", scan.suffix)
        )


def may_be_companion(path: str) -> bool:
    """Whether a file of a dataset has the BIDS name of a lesion mask, in an anat folder anywhere."""
    return _candidate(path) is not None


def companions_of(
    scans: Sequence[Scan], files: Mapping[str, TreeFile], bids_names: Mapping[str, str]
) -> tuple[list[Scan], list[str]]:
    """Every companion of a dataset's scans, as rows; and the paths that ``bids_names`` gives to a scan not among them.

    A file that ``bids_names`` names (``sub-01_label-lesion_desc-T1w_mask``) is the companion of that scan. Any other is
    found by its own name: that of its scans, or with fewer entities. Of two that fit equally well neither is taken.
    """
    named = {parsed: path for path, name in bids_names.items() if (parsed := parse_companion(name))}
    candidates: dict[str, list[_Candidate]] = {}
    for one in filter(None, (_candidate(path) for path in files if path not in bids_names)):
        candidates.setdefault(one.folder, []).append(one)
    rows = []
    for scan in scans:
        for kind in COMPANIONS:
            path = named.pop((f"{scan.scan}_{scan.suffix}", kind), None)
            path = path or _nearest(scan, kind, candidates.get(scan.folder, ()))
            if path is not None:
                rows.append(_row(scan, kind, files[path]))
    return rows, sorted(named.values())


def _nearest(scan: Scan, kind: str, candidates: Iterable[_Candidate]) -> str | None:
    fitting = [one for one in candidates if one.kind == kind and one.fits(scan)]
    best = max((one.precision for one in fitting), default=None)
    paths = sorted(one.path for one in fitting if one.precision == best)
    if len(paths) > 1:
        name = "_".join(companion_name(scan, kind))
        way_out = f"give one the name {name} in the dataset's bids_names"
        _log.warning("%s: both %s and %s could be its %s; %s", scan.name, *paths[:2], kind, way_out)
    return paths[0] if len(paths) == 1 else None


def _row(scan: Scan, kind: str, file: TreeFile) -> Scan:
    stem, suffix = companion_name(scan, kind)
    return Scan(scan.dataset, scan.subject, stem, suffix, file.path, file.key, file.bytes, "", "used", of=scan.name)


def _candidate(path: str) -> _Candidate | None:
    match = _FILE.fullmatch(path)
    if match is None or match["folder"].split("/") != _folders(match["scan"]):
        return None
    suffix = match["desc"] if match["desc"] in SUFFIXES else ""
    return _Candidate(path, "lesion", match["folder"], frozenset(match["scan"].split("_")), suffix)


def _folders(stem: str) -> list[str]:
    return [part for part in stem.split("_") if part.startswith(("sub-", "ses-"))]
