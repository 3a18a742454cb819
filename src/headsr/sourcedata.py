"""Source data: every scan, companion and label map pinned by its content in its table, and one of them fetched.

Standard library only, since fetching is a job of its own per scan.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headsr import annex
from headsr.clones import commit_of, git, sync_clone
from headsr.companions import companions_of, may_be_companion
from headsr.files import UnreadableError, parse_metadata, sidecar_of, whole
from headsr.labelmaps import PinnedMap, read_maps, write_maps
from headsr.scans import (
    DATASET_PATTERN,
    SPLITS,
    SUFFIXES,
    Scan,
    parse_companion,
    parse_name,
    parse_path,
    read_pins,
    write_scans,
)
from headsr.words import is_plain, shown

if TYPE_CHECKING:  # the types only: recipes reads YAML, which no job here needs
    from headsr.recipes import Dataset, LabelMaps

_log = logging.getLogger(__name__)
_THICKEST_MM = 1000
_SIDECAR = re.compile(rf"(?:.*/)?(?:sub-[^/]*_)?(?:{'|'.join(SUFFIXES)})\.json")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHOWN = 20  # longer lists are cut; the table's diff has them all


class SourceDataError(ValueError):
    """A dataset or one of its scans cannot be had. The message names it and the way out.

    It quotes datasets: it has no passwords, and nothing that a terminal would obey.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


@dataclass(frozen=True)
class PinReport:
    """What a pin found, by name (``demo/sub-01_T1w``): ``added``, ``changed``, ``vanished`` and ``unchanged``.

    ``commits`` is the commit of each dataset, ``notes`` what a person should look at, ``written`` whether the table
    changed.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]
    unchanged: tuple[str, ...]
    commits: dict[str, str]
    notes: tuple[str, ...]
    written: bool

    def text(self) -> str:
        """The report for a person, line by line."""
        lines = [f"{dataset}: commit {commit}" for dataset, commit in self.commits.items()]
        lines += _listed("added", self.added)
        lines += _listed("changed; what is made of them will be made anew", self.changed)
        lines += _listed("no longer in the dataset; kept in the table as unused, with the last key", self.vanished)
        lines += [f"unchanged: {len(self.unchanged)}", *(f"note: {note}" for note in self.notes)]
        lines.append("the table was rewritten: review it (git diff) and commit it" if self.written else "same table")
        return "\n".join(lines)


def pin_datasets(
    datasets: Mapping[str, Dataset],
    *,
    clones: str | os.PathLike[str],
    table: str | os.PathLike[str],
    only: Sequence[str] = (),
) -> PinReport:
    """Clone or update datasets (all, or ``only`` those named) and write what they hold at their version to the table.

    That is every image in BIDS' anat folders and those that the recipe's ``bids_names`` names, with their companions
    (headsr.companions). No content is got and nothing is read from a working tree. A row is known by its scan's name:
    one that exists keeps its split; the first pin of a dataset proposes splits, and whatever scan comes later enters as
    ``unused``, so that new data never retrain by accident. What vanished keeps its row, as ``unused``. The table is
    written once, at the end, and only if it changes. Raises SourceDataError naming the dataset and the way out; the
    table is then as it was, and no half clone is left.
    """
    before = _read_table(table)
    after = {scan.name: scan for scan in before}
    commits: dict[str, str] = {}
    found: list[Scan] = []
    remarks: list[str] = []
    for name in _chosen(datasets, only):
        clone = Path(clones, name)
        try:
            remarks += _synced(name, datasets[name], clone)
            commits[name] = _resolve(name, datasets[name].version, clone)
            here = _scans_at(name, clone, commits[name], datasets[name].bids_names)
        except annex.AnnexError as error:
            raise SourceDataError(f"dataset {name}: {error}") from error
        first = not any(scan.dataset == name for scan in before)
        splits = _proposal(name, datasets[name], here) if first else {}
        for scan in here:
            after[scan.name] = _merged(scan, after.get(scan.name), splits.get(scan.subject, "unused"))
        found += here
    return _publish(table, before, after, found=found, commits=commits, remarks=remarks)


def pin_label_maps(
    datasets: Mapping[str, LabelMaps],
    *,
    clones: str | os.PathLike[str],
    table: str | os.PathLike[str],
    only: Sequence[str] = (),
) -> PinReport:
    """Clone or update datasets of label maps, as ``pin_datasets`` does, and write their maps to the table.

    A row that exists keeps its split; the first pin of a dataset proposes splits, and whatever map comes later enters
    as ``unused``. One that the recipe no longer names keeps its row, as ``unused``. Raises SourceDataError.
    """
    before = _read_maps(table)
    after, found, commits, remarks = dict(before), [], {}, []
    for name in _chosen(datasets, only):
        commits[name], maps, remarks_here = _maps_of(name, datasets[name], Path(clones, name))
        remarks += remarks_here
        first = all(one.dataset != name for one in before.values())
        proposed = {subject: split for split, subjects in datasets[name].splits.items() for subject in subjects}
        for one in maps:
            split = proposed.get(one.subject, "unused") if first else "unused"
            after[one.name] = dataclasses.replace(one, split=before[one.name].split if one.name in before else split)
        found += [one.name for one in maps]
    return _publish_maps(table, before, after, found=found, commits=commits, remarks=remarks)


def fetch_scan(
    output: str | os.PathLike[str], *, clone: str | os.PathLike[str], name: str, key: str, at_once: int = 4
) -> None:
    """Write the content that ``key`` pins to ``output``: verified, whole or not at all.

    It is a scan's, a companion's or a label map's. ``clone`` is the dataset's clone, which ends as small as it began;
    ``name`` is what messages call the scan. At most
    ``at_once`` (1 or more) processes fetch through one clone at a time. Needs neither the scan's path nor a checkout,
    and reaches content that is no longer in the dataset's newest version. Raises SourceDataError naming scan, key and
    what to try.
    """
    failed = f"{name}: the content of {key} could not be fetched"
    try:
        with whole(output) as partial:
            annex.get_content(clone, key, partial, at_once=at_once)
    except annex.AnnexError as error:
        raise SourceDataError(f"{failed}: {error}") from error
    except OSError as error:
        way_out = "Check that folder and the space on its disk, then try again"
        raise SourceDataError(f"{failed}: {error}. {way_out}") from error


def _synced(name: str, dataset: Dataset | LabelMaps, clone: Path) -> list[str]:
    """Clone the dataset or bring its clone up to date; says which of its remotes were left off."""
    # A commit never changes, so one that is here works without the network.
    commit = dataset.version if _COMMIT.fullmatch(dataset.version) else ""
    return [f"{name}: {left_off}" for left_off in sync_clone(dataset.url, clone, commit=commit)]


def _resolve(name: str, version: str, clone: Path) -> str:
    """The commit of a version: a tag, or a commit itself. A branch is refused, for it moves."""
    where = f"dataset {name}: version {version!r}"
    commit = commit_of(clone, f"refs/tags/{version}")
    if commit is None and _COMMIT.fullmatch(version):
        commit = commit_of(clone, version)
    if commit is not None:
        return commit
    branch = commit_of(clone, f"refs/remotes/origin/{version}") if version else None
    if branch is not None:
        raise SourceDataError(f"{where} is a branch, which moves. Give a tag or a commit; now it is at {branch}")
    tags = git(clone, "tag", "--sort=-creatordate").split()
    near = difflib.get_close_matches(version, tags, n=1) or tags[:5]
    known = f"It has: {', '.join(near)}" if tags else "It has no tags: make one in it (git tag v1) or give a commit"
    raise SourceDataError(f"{where} is neither a tag nor a commit of it. {known}")


def _scans_at(name: str, clone: Path, commit: str, bids_names: Mapping[str, str]) -> list[Scan]:
    """Every anatomical image of a commit as a row without a split, with the thickness that its sidecars tell.

    After them their companions.
    """
    own_sidecars = {str(sidecar_of(path)) for path in bids_names}

    def wanted(path: str) -> bool:
        if not is_plain(path):  # no name that BIDS has, and no line of a table
            return False
        named = path in bids_names or path in own_sidecars
        return named or parse_path(path) is not None or _is_sidecar(path) or may_be_companion(path)

    files = annex.read_commit(clone, commit, wanted)
    _refuse_absent(name, clone, commit, [path for path in bids_names if path not in files])
    sidecars = _by_folder(file for path, file in files.items() if _is_sidecar(path))
    found: dict[str, Scan] = {}
    for path, file in files.items():
        parsed = parse_path(path) or parse_name(bids_names.get(path, ""))
        if parsed is None:
            continue
        subject, scan, suffix = parsed
        if parse_path(path) is not None:
            thickness = _thickness(f"{scan}_{suffix}", os.path.dirname(path), sidecars)
        else:  # inherits nothing: the sidecars above it are about the scans in the anat folders
            sidecar = str(sidecar_of(path))
            thickness = _millimetres(_metadata(files.get(sidecar)), sidecar)
        row = Scan(name, subject, scan, suffix, path, file.key, file.bytes, thickness, "unused")
        first = found.setdefault(row.name, row)
        if first is not row:
            raise SourceDataError(
                f"dataset {name}: {first.path} and {path} are both {scan}_{suffix}. Change the name in its bids_names"
            )
    if not found:
        images = f"sub-*/[ses-*/]anat/sub-*_{{{','.join(SUFFIXES)}}}.nii.gz"
        raise SourceDataError(f"dataset {name}: {clone} has no {images} at {commit[:10]}. Check its url and version")
    return [*found.values(), *_companions(name, list(found.values()), files, bids_names)]


def _companions(
    name: str, scans: Sequence[Scan], files: Mapping[str, annex.TreeFile], bids_names: Mapping[str, str]
) -> list[Scan]:
    companions, lonely = companions_of(scans, files, bids_names)
    if lonely:
        scan = parse_companion(bids_names[lonely[0]])[0]
        raise SourceDataError(
            f"dataset {name}: its bids_names gives {lonely[0]} to {scan}, a scan that it does not have"
        )
    return companions


def _maps_of(name: str, dataset: LabelMaps, clone: Path) -> tuple[str, list[PinnedMap], list[str]]:
    """The commit that a dataset is at, its label maps there, without splits, and what a person should know of both."""
    try:
        remarks = _synced(name, dataset, clone)
        commit = _resolve(name, dataset.version, clone)
        files = annex.read_commit(clone, commit, dataset.maps.__contains__)
    except annex.AnnexError as error:
        raise SourceDataError(f"dataset {name}: {error}") from error
    _refuse_absent(name, clone, commit, [path for path in dataset.maps if path not in files], key="maps")
    maps = [
        PinnedMap(name, subject, path, files[path].key, files[path].bytes, "unused")
        for path, subject in dataset.maps.items()
    ]
    return commit, maps, remarks


def _refuse_absent(name: str, clone: Path, commit: str, absent: Sequence[str], *, key: str = "bids_names") -> None:
    """Every path that the recipe's ``key`` names must be there: else it would silently leave the table."""
    if not absent:
        return
    paths = git(clone, "ls-tree", "-rz", "--name-only", "--full-tree", commit).split("\0")
    near = difflib.get_close_matches(absent[0], [path for path in paths if path.endswith(".nii.gz")], n=1, cutoff=0)
    hint = f"The nearest that it has is {near[0]}" if near else "It has no .nii.gz files"
    raise SourceDataError(
        f"dataset {name}: its {key} names {absent[0]}, which it does not have at {commit[:10]}. {hint}"
    )


def _is_sidecar(path: str) -> bool:
    return _SIDECAR.fullmatch(path) is not None


def _by_folder(sidecars: Iterable[annex.TreeFile]) -> dict[str, list[tuple[set[str], str, annex.TreeFile]]]:
    """Entities, suffix and file of every sidecar, by folder; the most specific sidecar of a folder first."""
    folders = defaultdict(list)
    for file in sidecars:
        *entities, suffix = os.path.basename(file.path).removesuffix(".json").split("_")
        folders[os.path.dirname(file.path)].append((set(entities), suffix, file))
    for entries in folders.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return folders


def _thickness(stem: str, folder: str, sidecars: Mapping[str, list[tuple[set[str], str, annex.TreeFile]]]) -> str:
    """Slice thickness in mm by BIDS inheritance: the nearest sidecar that says one, '' where it cannot be known.

    An annexed sidecar may overrule those above it, and its content is not here: unknown.
    """
    *entities, suffix = stem.split("_")
    while True:
        for about, kind, file in sidecars.get(folder, ()):
            if kind == suffix and about <= set(entities):
                metadata = _metadata(file)
                if metadata is None or "SliceThickness" in metadata:
                    return _millimetres(metadata, file.path)
        if not folder:
            return ""
        folder = os.path.dirname(folder)


def _metadata(file: annex.TreeFile | None) -> dict[str, object] | None:
    if file is None or file.content is None:
        return None
    try:
        return parse_metadata(file.content)
    except ValueError as error:
        _log.warning("%s is not JSON (%s): its slice thickness counts as unknown", file.path, shown(str(error)))
        return None


def _millimetres(metadata: Mapping[str, object] | None, path: str) -> str:
    value = (metadata or {}).get("SliceThickness")
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _THICKEST_MM:
        return f"{value:.6g}"
    _log.warning("%s: SliceThickness %r is no size in mm: it counts as unknown", path, shown(repr(value)[:80]))
    return ""


def _chosen(datasets: Mapping[str, Dataset | LabelMaps], only: Sequence[str]) -> list[str]:
    for name in only:
        if name not in datasets:
            raise SourceDataError(f"there is no dataset {name!r}. Known datasets: {', '.join(datasets) or 'none'}")
    for name in datasets:
        if re.fullmatch(DATASET_PATTERN, name) is None:
            raise SourceDataError(f"dataset {name!r}: its name must be letters and digits, as it is part of file names")
    return [name for name in datasets if not only or name in only]


def _read_table(table: str | os.PathLike[str]) -> tuple[Scan, ...]:
    if not os.path.exists(table):
        return ()
    try:
        return read_pins(table)
    except UnreadableError as error:
        raise SourceDataError(
            f"{error}. Pinning keeps the splits of the table, so it does not write over one that it cannot read:"
            " repair that line, or move the table away to begin anew"
        ) from error


def _read_maps(table: str | os.PathLike[str]) -> dict[str, PinnedMap]:
    """The rows of the table of label maps, by name."""
    if not os.path.exists(table):
        return {}
    try:
        return {one.name: one for one in read_maps(table)}
    except UnreadableError as error:
        raise SourceDataError(f"{error}. Pinning keeps the splits of the table: repair it, or move it away") from error


def _proposal(name: str, dataset: Dataset, found: Sequence[Scan]) -> dict[str, str]:
    """A split per subject: the recipe's where it has any, else 70/10/20 by a hash of the person's name."""
    subjects = sorted({scan.subject for scan in found})
    if not dataset.splits:
        return {subject: _hashed_split(name, subject) for subject in subjects}
    proposed: dict[str, str] = {}
    for split, labels in dataset.splits.items():
        if split not in SPLITS:
            raise SourceDataError(f"dataset {name}: splits has {split!r}; it must be one of {', '.join(SPLITS)}")
        for label in labels:
            subject = f"sub-{str(label).removeprefix('sub-')}"
            if proposed.setdefault(subject, split) != split:
                raise SourceDataError(f"dataset {name}: {subject} is in two splits, {proposed[subject]} and {split}")
            if subject not in subjects:
                raise SourceDataError(f"dataset {name}: splits names {subject}, which it does not have")
    return proposed


def _hashed_split(name: str, subject: str) -> str:
    share = int(hashlib.sha256(f"{name}/{subject}".encode()).hexdigest()[:12], 16) / 16**12
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def _merged(found: Scan, row: Scan | None, split: str) -> Scan:
    """The new row: an old one keeps its split, and a thickness that people wrote where the sidecars say none."""
    if row is None:
        return found if found.of else dataclasses.replace(found, split=split)
    thickness = found.thickness or (row.thickness if row.key == found.key else "")
    return dataclasses.replace(found, split=row.split, thickness=thickness)


def _publish(
    table: str | os.PathLike[str],
    before: Sequence[Scan],
    after: dict[str, Scan],
    *,
    found: Sequence[Scan],
    commits: dict[str, str],
    remarks: Sequence[str],
) -> PinReport:
    """Mark what vanished, write the table if it changed, and report."""
    known, present = {scan.name: scan for scan in before}, {scan.name for scan in found}
    report = _compare(known, after, present=present, commits=commits, written=not os.path.exists(table))
    if report.written:
        write_scans(table, after.values())
    here = [after[name] for name in sorted(present)]
    return dataclasses.replace(report, notes=(*remarks, *_unpinned(here), *_notes(here, known)))


def _publish_maps(
    table: str | os.PathLike[str],
    before: Mapping[str, PinnedMap],
    after: dict[str, PinnedMap],
    *,
    found: Sequence[str],
    commits: dict[str, str],
    remarks: Sequence[str],
) -> PinReport:
    """Mark what vanished, write the table if it changed, and report."""
    report = _compare(before, after, present=set(found), commits=commits, written=not os.path.exists(table))
    if report.written:
        write_maps(table, after.values())
    new = sum(after[name].split == "unused" for name in report.added)
    notes = [f"{new} new label maps are unused until you choose their split in the table"] if new else []
    return dataclasses.replace(report, notes=(*remarks, *_unpinned([after[name] for name in found]), *notes))


def _compare(
    known: Mapping[str, Scan | PinnedMap],
    after: dict[str, Scan | PinnedMap],
    *,
    present: Set[str],
    commits: dict[str, str],
    written: bool,
) -> PinReport:
    """Mark in ``after`` what vanished, and say what became of every row; ``written``: the table is new in any case."""
    vanished = [name for name, row in after.items() if row.dataset in commits and name not in present]
    for name in vanished:
        after[name] = dataclasses.replace(after[name], split="unused")
    here = [after[name] for name in sorted(present)]
    return PinReport(
        added=tuple(row.name for row in here if row.name not in known),
        changed=tuple(row.name for row in here if known.get(row.name, row) != row),
        vanished=tuple(sorted(vanished)),
        unchanged=tuple(row.name for row in here if known.get(row.name) == row),
        commits=commits,
        notes=(),
        written=written or after != known,
    )


def _unpinned(here: Iterable[Scan | PinnedMap]) -> Iterable[str]:
    """What is to be said of the keys that do not pin a content."""
    loose = defaultdict(list)
    for row in here:
        if not annex.pins_content(row.key):
            loose[row.dataset].append(row)
    for dataset, rows in loose.items():
        backends = " and ".join(sorted({row.key.partition("-")[0] for row in rows}))
        yield (
            f"{dataset}: the keys of {len(rows)} files, such as {rows[0].name}, are of {backends} and hold no hash: "
            "other content of the same size would be taken for theirs. Ask the dataset's maintainers for keys that do "
            "(git annex migrate)"
        )


def _notes(here: Sequence[Scan], known: Mapping[str, Scan]) -> Iterable[str]:
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for scan in here:
        if not scan.of:
            splits[scan.dataset, scan.subject].add(scan.split)
    for (dataset, subject), used in splits.items():
        if len(used - {"unused"}) > 1:
            yield f"{dataset}/{subject} is in {' and '.join(sorted(used - {'unused'}))}: keep a person in one split"
    new = sum(scan.name not in known and scan.split == "unused" and not scan.of for scan in here)
    if new:
        yield f"{new} new scans are unused until you choose their split in the table (one split per person)"


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"  and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{title} ({len(names)}):", *(f"  {name}" for name in names[:_SHOWN]), *more]
