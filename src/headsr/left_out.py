"""Which images of a dataset are none of its scans, and why: none is left out without a word. Standard library only."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Set

from headsr.scans import ENTITIES, IMAGES, SUFFIXES, image_stem, parse_name, parse_path
from headsr.words import shown

_OTHER_FORMATS = (".mgz", ".mgh", ".mnc", ".nrrd", ".img", ".dcm", ".ima")
_KNOWN = {"sub", "ses", "part", *ENTITIES}
_NAMED = re.compile(r"sub-[^_]+(?:_[A-Za-z]+-[^_]+)*_(?P<suffix>[A-Za-z0-9]+)")
_FORM = f"sub-1/[ses-1/]anat/sub-1[_ses-1][_run-1]_{{{','.join(SUFFIXES)}}}.nii[.gz]"
_SHOWN = 3  # paths of a reason


def is_image(path: str) -> bool:
    """Whether the name of a file is that of an image, in a format that headsr reads or in another."""
    return path.lower().endswith((*IMAGES, *_OTHER_FORMATS))


def left_out(paths: Iterable[str], pinned: Set[str]) -> list[str]:
    """For every reason why images of a dataset are not ``pinned``, how many there are and the first of them."""
    by_reason = defaultdict(list)
    for path in sorted(path for path in paths if is_image(path) and path not in pinned):
        reason = "beside a .nii.gz of the same name" if f"{path}.gz" in pinned else why_left_out(path)
        by_reason[reason].append(path)
    return [f"{_counted(found)} {reason}: {_listed(found)}" for reason, found in by_reason.items()]


def why_left_out(path: str) -> str:
    """Why the image at a path of a BIDS dataset is none of its scans, as what follows ``image`` in a sentence."""
    folders, _, file = path.rpartition("/")
    kind = folders.rpartition("/")[2]
    if not folders.startswith("sub-"):
        return "outside the folders of people (sub-*)"
    if kind != "anat":
        return "beside an anat folder, not in it" if kind.startswith(("sub-", "ses-")) else f"in {kind}, not in anat"
    if file.lower().endswith(_OTHER_FORMATS):
        return "in another format than NIfTI"
    if parse_path(path) is not None:
        return "of which git-annex has no content: a link elsewhere, or a key that headsr does not read"
    return _why_not_by_name(image_stem(file))


def _why_not_by_name(name: str) -> str:
    """Of an image in an anat folder."""
    named = _NAMED.fullmatch(name)
    suffix = named["suffix"] if named else ""
    if suffix == "CT":
        return "of suffix CT, which headsr does not take yet"
    if suffix and suffix.lower() not in {one.lower() for one in SUFFIXES}:
        return f"of suffix {suffix}, none of {', '.join(SUFFIXES)}"
    if re.search(r"_part-(?!mag_)", name):
        return "of another part of a complex image than its magnitude (part-)"
    entities = {entity for entity, dash, _ in (one.partition("-") for one in name.split("_")) if dash}
    if suffix in SUFFIXES and (unknown := sorted(entities - _KNOWN)):
        return f"with {unknown[0]}-, an entity that no scan of headsr has"
    if parse_name(name):
        return "in the folder of another person or session than its name says"
    return f"without a scan's name ({_FORM}, labels of letters and digits)"


def _counted(paths: list[str]) -> str:
    return "1 image" if len(paths) == 1 else f"{len(paths)} images"


def _listed(paths: list[str]) -> str:
    return ", ".join(map(shown, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")
