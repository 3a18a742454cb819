"""A scan, its BIDS name, and the table that pins every scan and its companions (``config/scans.tsv``).

Standard library only: Snakemake reads this module again inside every cluster job.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from headsr.files import UnreadableError, read_rows, whole

if TYPE_CHECKING:
    from headsr.labelmaps import PinnedMap

SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR")
SPLITS = ("train", "val", "test", "unused")
COMPANION_SPLITS = ("used", "unused")  # a companion goes wherever its scan goes, or nowhere

# The wildcards of the workflow. `folder` is sub-01 or sub-01/ses-a; `scan` is the BIDS stem without its suffix. Of the
# parts of a complex image only its magnitude is a scan.
FOLDER_PATTERN = r"sub-[A-Za-z0-9]+(?:/ses-[A-Za-z0-9]+)?"
ENTITIES = ("task", "acq", "ce", "rec", "run", "echo", "chunk")
SCAN_PATTERN = (
    rf"sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?(?:_(?:(?:{'|'.join(ENTITIES)})-[A-Za-z0-9]+|part-mag(?![A-Za-z0-9])))*"
)
DATASET_PATTERN = r"[A-Za-z0-9]+"
BYTES_PATTERN = r"[0-9]{1,18}"  # of the tables' sizes

_SUFFIX = "|".join(SUFFIXES)
# What stands after the stem of its scan in the name of a companion, and the suffix that it ends with.
COMPANIONS = {"lesion": ("label-lesion_desc-{}", "mask")}
_ENDINGS = {kind: f"{name.format(f'(?:{_SUFFIX})')}_{ending}" for kind, (name, ending) in COMPANIONS.items()}
PINNED_PATTERN = rf"{SCAN_PATTERN}_(?:{'|'.join([_SUFFIX, *_ENDINGS.values()])})"  # a scan or a companion

_NAME = re.compile(rf"(?P<scan>{SCAN_PATTERN})_(?P<suffix>{_SUFFIX})")
_COMPANION = re.compile(
    rf"(?P<scan>{SCAN_PATTERN})_(?:{'|'.join(f'(?P<{kind}>{ending})' for kind, ending in _ENDINGS.items())})"
)
_SHOWN = 5  # people in a message
IMAGES = (".nii.gz", ".nii")  # the endings of BIDS' images


class ScansError(UnreadableError):
    """The scan table, or a name in it, is not what headsr needs. The message names the file and the way out."""


@dataclass(frozen=True)
class Scan:
    """One pinned image file of one subject: a scan, or a companion of one (its lesion mask).

    ``scan`` is the BIDS stem without its suffix (``sub-02_ses-a_run-1``), ``path`` where the dataset keeps the file
    (``bids_names`` in config/datasets.yaml names those outside BIDS' anat folders), ``key`` the git-annex key that pins
    the content, ``bytes`` its size, ``thickness`` the slice thickness in mm from the scan's JSON sidecar ('' when it
    says nothing) and ``split`` one of train, val, test, unused. ``of`` is the name of the scan that a companion belongs
    to, '' for a scan; a companion's ``split`` is used or unused.
    """

    dataset: str
    subject: str
    scan: str
    suffix: str
    path: str
    key: str
    bytes: int
    thickness: str
    split: str
    of: str = ""

    @property
    def folder(self) -> str:
        """``sub-01`` or ``sub-01/ses-a``: where BIDS keeps a scan of this name, wherever its dataset does."""
        return _folder_of(self.scan)

    @property
    def name(self) -> str:
        """What people call this scan in messages: ``demo/sub-01_T1w``."""
        return f"{self.dataset}/{self.scan}_{self.suffix}"

    @property
    def stem(self) -> str:
        """The scan's place in every results tree, without its suffix: ``demo/sub-01/sub-01``."""
        return f"{self.dataset}/{self.folder}/{self.scan}"


# The last column is never empty: programs that strip trailing white space leave the table whole.
COLUMNS = (*(field.name for field in fields(Scan) if field.name not in ("of", "split")), "of", "split")
_DECIMAL_COMMA = re.compile(r"\s*(\d+),(\d+)\s*")  # as spreadsheets write numbers in half of Europe


def parse_name(name: str) -> tuple[str, str, str] | None:
    """Split the BIDS name ``sub-01_ses-a_T1w`` into subject, scan and suffix; None for any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match["scan"].split("_")[0], match["scan"], match["suffix"])


def parse_path(path: str) -> tuple[str, str, str] | None:
    """Split ``sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz`` into subject, scan and suffix; None for any other file."""
    folder, _, file = path.rpartition("/")
    parsed = parse_name(image_stem(file)) if file.endswith(IMAGES) else None
    return parsed if parsed is not None and folder == f"{_folder_of(parsed[1])}/anat" else None


def image_stem(file: str) -> str:
    """The name of an image file without its ending."""
    return file.removesuffix(".gz").removesuffix(".nii")


def splits_by_subject(splits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The splits of every person that a dataset's recipe names, whose labels it may write with or without ``sub-``."""
    found: dict[str, list[str]] = {}
    for split, labels in splits.items():
        for label in labels:
            found.setdefault(f"sub-{label.removeprefix('sub-')}", []).append(split)
    return found


def other_splits(dataset: str, splits: Mapping[str, Iterable[str]], rows: Iterable[Scan | PinnedMap]) -> list[str]:
    """Where a table of pins has a person in no split that the recipe of the dataset says: a line for each difference.

    ``rows`` are scans or label maps, no companions. The table decides; a recipe proposes splits to the first pin alone.
    """
    pinned: dict[str, set[str]] = {}
    for row in rows:
        if row.dataset == dataset:
            pinned.setdefault(row.subject, set()).add(row.split)
    apart: dict[tuple[str, str], list[str]] = {}
    for subject, said in splits_by_subject(splits).items():
        if (has := pinned.get(subject)) and has.isdisjoint(said):
            apart.setdefault((" and ".join(said), " and ".join(sorted(has))), []).append(subject)
    return [
        f"{dataset}: its recipe says {said} of {_people(subjects)}, and the table of pins, which decides, says {has}. "
        "Write the same in both"
        for (said, has), subjects in apart.items()
    ]


def copies_in_splits(rows: Iterable[Scan | PinnedMap]) -> list[str]:
    """Which scans or label maps of one content are in several splits: a line for each, of those that are used.

    What is measured on one of them was learned, or chosen, by another, whatever the two are called.
    """
    splits: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.split != "unused":
            splits.setdefault(row.key, {}).setdefault(row.split, row.name)
    return [
        f"{' and '.join(names.values())} have one content, and are in the splits {' and '.join(names)}: scores would "
        "be of what was trained on. Set all but one to unused in the table of pins"
        for names in splits.values()
        if len(names) > 1
    ]


def _people(subjects: Sequence[str]) -> str:
    more = f" and {len(subjects) - _SHOWN} more" if len(subjects) > _SHOWN else ""
    return ", ".join(subjects[:_SHOWN]) + more


def companion_name(scan: Scan, kind: str) -> tuple[str, str]:
    """Stem and suffix of a scan's companion: ``sub-01_label-lesion_desc-T1w`` and ``mask`` for its lesion."""
    name, suffix = COMPANIONS[kind]
    return f"{scan.scan}_{name.format(scan.suffix)}", suffix


def parse_companion(name: str) -> tuple[str, str] | None:
    """Split ``sub-01_label-lesion_desc-T1w_mask`` into the name of its scan, ``sub-01_T1w``, and its kind, ``lesion``.

    None for any other name.
    """
    match = _COMPANION.fullmatch(name)
    if match is None:
        return None
    (kind,) = [kind for kind in COMPANIONS if match[kind]]
    return f"{match['scan']}_{name.rpartition('desc-')[2].split('_')[0]}", kind


def may_be_named(path: str, name: str) -> bool:
    """Whether the file at this path of a dataset may be the scan, or the companion, of this BIDS name.

    Any image may, but one in an anat folder of a person (``sub-01/anat/sub-01_T1w.nii.gz``) that has a BIDS name
    already: to give it another is a slip.
    """
    folder, _, file = path.rpartition("/anat/")
    own = parse_name(image_stem(file)) if re.fullmatch(FOLDER_PATTERN, folder) else None
    return path.endswith(IMAGES) and own in (None, parse_name(name))


def read_scans(path: str | os.PathLike[str]) -> tuple[Scan, ...]:
    """The scans of the scan table, without their companions; raises errors as ``read_pins``."""
    return tuple(pin for pin in read_pins(path) if not pin.of)


def read_pins(path: str | os.PathLike[str]) -> tuple[Scan, ...]:
    """Read and check the scan table: every scan and every companion. One without the column ``of`` has scans alone.

    Raises ScansError naming the file, the line and the way out when a column, split, name or key is wrong, and
    UnreadableError for what is no table.
    """
    try:
        columns, rows = read_rows(path)
    except FileNotFoundError:
        raise ScansError(f"{path}: the scan table does not exist. Write it with: headsr pin") from None
    if columns not in (COLUMNS, tuple(name for name in COLUMNS if name != "of")):
        raise ScansError(f"{path}: its columns must be {' '.join(COLUMNS)}. Write it again with: headsr pin")
    pins = tuple(_read_row(where, row) for where, row in rows)
    _refuse_repeats(path, pins)
    _refuse_lonely(path, pins)
    return pins


def write_scans(path: str | os.PathLike[str], scans: Iterable[Scan]) -> None:
    """Write the table whole or not at all, sorted by dataset, path: a diff shows what changed and nothing else."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for scan in sorted(scans, key=lambda scan: (scan.dataset, scan.path, scan.name)):
        writer.writerow([getattr(scan, column) for column in COLUMNS])
    with whole(path) as partial:
        partial.write_text(buffer.getvalue(), encoding="utf-8")


def _read_row(where: str, row: dict[str, str]) -> Scan:
    name, of = f"{row['scan']}_{row['suffix']}", row.get("of", "")
    _refuse_misnamed(where, name, row["subject"], of.removeprefix(f"{row['dataset']}/"))
    if not may_be_named(row["path"], name):
        raise ScansError(f"{where}: subject, scan or suffix do not match the path {row['path']!r}")
    if re.fullmatch(DATASET_PATTERN, row["dataset"]) is None:
        raise ScansError(f"{where}: the dataset name {row['dataset']!r} must be letters and digits")
    splits = COMPANION_SPLITS if of else SPLITS
    if row["split"] not in splits:
        raise ScansError(f"{where}: split {row['split']!r} must be one of {', '.join(splits)}")
    if not row["key"] or not re.fullmatch(BYTES_PATTERN, row["bytes"]):
        raise ScansError(
            f"{where}: key or bytes is missing. Repair that line from git, or move the table away and run: headsr pin"
        )
    thickness = _thickness(row["thickness"])
    if thickness and not _is_size(thickness):
        raise ScansError(f"{where}: thickness {row['thickness']!r} is no size in mm. Leave empty what is not known")
    return Scan(**{**row, "bytes": int(row["bytes"]), "thickness": thickness})


def _thickness(text: str) -> str:
    """What people write, as a number is written: n/a is BIDS' word for unknown."""
    comma = _DECIMAL_COMMA.fullmatch(text)
    return "" if text.strip() == "n/a" else f"{comma[1]}.{comma[2]}" if comma else text


def _is_size(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _refuse_misnamed(where: str, name: str, subject: str, of: str) -> None:
    """A scan has the name of one of its subject, a companion that of its scan."""
    if not of and (parse_name(name) or ("",))[0] != subject:
        raise ScansError(f"{where}: {name!r} is not the BIDS name of a scan of {subject!r}")
    if of and ((parse_companion(name) or ("",))[0] != of or name.split("_")[0] != subject):
        raise ScansError(f"{where}: {name!r} is not the name of a companion of {of!r} of {subject!r}. Remove that row")


def _refuse_repeats(path: str | os.PathLike[str], scans: Sequence[Scan]) -> None:
    """Two scans of one name would write the same outputs."""
    seen: dict[str, Scan] = {}
    for scan in scans:
        first = seen.setdefault(scan.name, scan)
        if first is not scan:
            raise ScansError(f"{path}: {scan.name} is listed twice, as {first.path} and {scan.path}. Remove one row")


def _refuse_lonely(path: str | os.PathLike[str], pins: Sequence[Scan]) -> None:
    """A companion belongs to a scan of the table."""
    scans = {pin.name for pin in pins if not pin.of}
    for pin in pins:
        if pin.of and pin.of not in scans:
            raise ScansError(
                f"{path}: {pin.name} belongs to {pin.of}, which has no row. Remove the one or restore the other"
            )


def _folder_of(scan: str) -> str:
    return "/".join(part for part in scan.split("_") if part.startswith(("sub-", "ses-")))
