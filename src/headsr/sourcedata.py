"""Source data: every scan, companion and label map pinned by its content in its table, and one of them fetched.

Standard library only, since fetching is a job of its own per scan.
"""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headsr import annex
from headsr.clones import commit_of, git, sync_clone
from headsr.companions import companions_of, may_be_companion
from headsr.files import UnreadableError, is_plain_nifti, sidecar_of, whole
from headsr.labelmaps import PinnedMap, read_maps, write_maps
from headsr.left_out import left_out
from headsr.scans import (
    DATASET_PATTERN,
    IMAGES,
    SPLITS,
    SUFFIXES,
    Scan,
    copies_in_splits,
    other_splits,
    parse_companion,
    parse_name,
    parse_path,
    read_pins,
    splits_by_subject,
    write_scans,
)
from headsr.sidecars import Sidecars, is_sidecar, thickness_of
from headsr.subdatasets import Trees, clone_of, trees_of
from headsr.words import is_plain, shown

if TYPE_CHECKING:  # the types only: recipes reads YAML, which no job here needs
    from headsr.recipes import Dataset, LabelMaps

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHOWN = 20  # longer lists are cut; the table's diff has them all
_FAILURES = 3  # after so many sidecars that cannot be had, no other is asked for


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
    changed. ``left_out`` says of the images that are no scans how many there are, and why.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]
    unchanged: tuple[str, ...]
    commits: dict[str, str]
    notes: tuple[str, ...]
    written: bool
    left_out: tuple[str, ...] = ()

    def text(self) -> str:
        """The report for a person, line by line."""
        lines = [f"{dataset}: commit {commit}" for dataset, commit in self.commits.items()]
        lines += _listed("added", self.added)
        lines += _listed("changed; what is made of them will be made anew", self.changed)
        lines += _listed("no longer in the dataset; kept in the table as unused, with the last key", self.vanished)
        lines.append(f"unchanged: {len(self.unchanged)}")
        if self.left_out:
            lines += ["left out (bids_names can name an image):", *(f"  {words}" for words in self.left_out)]
        lines += [f"note: {note}" for note in self.notes]
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

    That is every image in BIDS' anat folders, also of people that are subdatasets, and those that the recipe's
    ``bids_names`` names, with their companions (headsr.companions). Of images no content is got, only annexed sidecars
    are, and nothing is read from a working tree. A row is known by its scan's name:
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
    others: list[str] = []
    for name in _chosen(datasets, only):
        clone = Path(clones, name)
        try:
            remarks += _synced(name, datasets[name], clone)
            commits[name] = _resolve(name, datasets[name].version, clone)
            held = _held_at(name, clone, commits[name], datasets[name].bids_names)
        except annex.AnnexError as error:
            raise SourceDataError(f"dataset {name}: {error}") from error
        first = not any(scan.dataset == name for scan in before)
        splits = _proposal(name, datasets[name], held.rows) if first else {}
        for scan in held.rows:
            after[scan.name] = _merged(scan, after.get(scan.name), splits.get(scan.subject, "unused"))
        pinned = [after[scan.name] for scan in held.rows if not scan.of]
        remarks += [*held.remarks, *other_splits(name, datasets[name].splits, pinned)]
        found += held.rows
        others += held.left_out
    remarks += copies_in_splits(scan for scan in after.values() if not scan.of)
    report = _publish(table, before, after, found=found, commits=commits, remarks=remarks)
    return dataclasses.replace(report, left_out=tuple(others))


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
        remarks += other_splits(name, datasets[name].splits, [after[one.name] for one in maps])
        found += [one.name for one in maps]
    remarks += copies_in_splits(after.values())
    return _publish_maps(table, before, after, found=found, commits=commits, remarks=remarks)


def fetch_scan(
    output: str | os.PathLike[str],
    *,
    clone: str | os.PathLike[str],
    name: str,
    key: str,
    path: str = "",
    at_once: int = 4,
) -> None:
    """Write the content that ``key`` pins to ``output`` (.nii.gz): verified, whole or not at all.

    It is a scan's, a companion's or a label map's; one that its dataset keeps as plain .nii is compressed. ``clone`` is
    the dataset's clone, which ends as small as it began, and ``path`` tells which of its subdatasets has the content;
    ``name`` is what messages call the scan. At most ``at_once`` (1 or more) processes fetch through one clone at a
    time. Needs no checkout, and reaches content that is no longer in the dataset's newest version. Raises
    SourceDataError naming scan, key and what to try.
    """
    failed = f"{name}: the content of {key} could not be fetched"
    try:
        with whole(output) as partial:
            annex.get_content(clone_of(Path(clone), path), key, partial, at_once=at_once)
            if is_plain_nifti(partial):
                _compress(partial)
    except annex.AnnexError as error:
        raise SourceDataError(f"{failed}: {error}") from error
    except OSError as error:
        way_out = "Check that folder and the space on its disk, then try again"
        raise SourceDataError(f"{failed}: {error}. {way_out}") from error


def _compress(path: Path) -> None:
    """Compress a file in its place; the same content gives the same bytes."""
    with path.open("rb") as plain:
        path.unlink()  # it lives on until it is closed, and no second name is left behind by who is killed here
        with path.open("wb") as stream, gzip.GzipFile("", "wb", 1, stream, mtime=0) as packed:
            shutil.copyfileobj(plain, packed, 2**20)


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


class _Held(NamedTuple):
    """What a dataset holds at a commit.

    Its scans as rows without a split, with the thickness that their sidecars tell, and after them their companions;
    what of it is no scan, and why; and what a person should know.
    """

    rows: list[Scan]
    left_out: list[str]
    remarks: list[str]


def _held_at(name: str, clone: Path, commit: str, bids_names: Mapping[str, str]) -> _Held:
    trees = trees_of(clone, commit)
    paths = [f"{tree.prefix}{path}" for tree in trees.found for path in _paths_at(tree.clone, tree.commit)]
    files = _files_of(trees, bids_names)
    _refuse_absent(name, commit, [path for path in bids_names if path not in files], paths)
    scans, remarks = _scans_among(name, clone, files, bids_names)
    rows = [*scans, *_companions(name, scans, files, bids_names)]
    others = _others(trees, paths, {row.path for row in rows})
    if not scans:
        images = f"sub-*/[ses-*/]anat/sub-*_{{{','.join(SUFFIXES)}}}.nii[.gz]"
        held = "".join(f"; left out: {words}" for words in others)
        raise SourceDataError(
            f"dataset {name}: {clone} has no {images} at {commit[:10]}. Check its url and version{held}"
        )
    return _Held(
        rows, [f"{name}: {words}" for words in others], [f"{name}: {remark}" for remark in (*trees.remarks, *remarks)]
    )


def _paths_at(clone: Path, commit: str) -> list[str]:
    return [path for path in git(clone, "ls-tree", "-rz", "--name-only", "--full-tree", commit).split("\0") if path]


def _files_of(trees: Trees, bids_names: Mapping[str, str]) -> dict[str, annex.TreeFile]:
    """The files of a dataset that may say something of scans, by their paths in it."""
    own_sidecars = {str(sidecar_of(path)) for path in bids_names}

    def wanted(path: str) -> bool:
        if not is_plain(path):  # no name that BIDS has, and no line of a table
            return False
        named = path in bids_names or path in own_sidecars
        return named or parse_path(path) is not None or is_sidecar(path) or may_be_companion(path)

    files = {}
    for tree in trees.found:
        within = annex.read_commit(tree.clone, tree.commit, lambda path, prefix=tree.prefix: wanted(prefix + path))
        files |= {tree.prefix + path: file._replace(path=tree.prefix + path) for path, file in within.items()}
    return files


def _others(trees: Trees, paths: Iterable[str], pinned: Set[str]) -> list[str]:
    """What of a dataset is no scan, and why."""
    found = left_out(paths, pinned)
    if trees.others:
        known = [f"{path} ({url})" if url else path for path, url in sorted(trees.others.items())]
        found.append(f"{_first(known)}: no people, but subdatasets; give one that holds scans an entry of its own")
    why_lost = defaultdict(list)
    for path, why in trees.lost.items():
        why_lost[why].append(path)
    lost = [f"{_first(paths)}: subdatasets that cannot be had: {why}" for why, paths in why_lost.items()]
    return [*found, *lost]


def _first(names: Sequence[str]) -> str:
    """The first names of a long list, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _scans_among(
    name: str, clone: Path, files: Mapping[str, annex.TreeFile], bids_names: Mapping[str, str]
) -> tuple[list[Scan], list[str]]:
    """The scans among the files of a dataset, and what a person should know of their thickness."""
    named = {path: parsed for path in files if (parsed := parse_path(path) or parse_name(bids_names.get(path, "")))}
    sidecars = Sidecars(files.values())
    about = {path: _sidecars_of(path, parsed, files, sidecars) for path, parsed in named.items()}
    annexed = {one.key: one for found in about.values() for one in found if one.content is None}
    texts, remarks = _texts_of(clone, list(annexed.values()))
    found: dict[str, Scan] = {}
    for path, (subject, scan, suffix) in named.items():
        if named.get(f"{path}.gz") == named[path]:
            continue
        thickness = thickness_of(about[path], texts)
        row = Scan(name, subject, scan, suffix, path, files[path].key, files[path].bytes, thickness, "unused")
        first = found.setdefault(row.name, row)
        if first is not row:
            raise SourceDataError(
                f"dataset {name}: {first.path} and {path} are both {scan}_{suffix}. Change the name in its bids_names"
            )
    return list(found.values()), remarks


def _sidecars_of(
    path: str, parsed: tuple[str, str, str], files: Mapping[str, annex.TreeFile], sidecars: Sidecars
) -> list[annex.TreeFile]:
    if parse_path(path) is not None:
        return list(sidecars.about("_".join(parsed[1:]), os.path.dirname(path)))
    # It inherits nothing: the sidecars above it are about the scans in the anat folders.
    own = files.get(str(sidecar_of(path)))
    return [] if own is None else [own]


def _texts_of(clone: Path, sidecars: Sequence[annex.TreeFile]) -> tuple[dict[str, bytes], list[str]]:
    """The contents of annexed sidecars, by key, and what is to be said of those that cannot be had."""
    texts: dict[str, bytes] = {}
    why = []
    for file in sidecars:
        if len(why) == _FAILURES:
            break
        try:
            texts[file.key] = annex.get_text(clone_of(clone, file.path), file.key)
        except annex.AnnexError as error:
            why.append(f"{file.path}: {error}")
    missing = f"{len(sidecars) - len(texts)} of {len(sidecars)} annexed sidecars"
    said = f"{missing} could not be had, and the slice thickness that they say is unknown: {'; '.join(why)}"
    return texts, [shown(said)] if why else []


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
    absent = [path for path in dataset.maps if path not in files]
    _refuse_absent(name, commit, absent, _paths_at(clone, commit) if absent else (), key="maps")
    maps = [
        PinnedMap(name, subject, path, files[path].key, files[path].bytes, "unused")
        for path, subject in dataset.maps.items()
    ]
    return commit, maps, remarks


def _refuse_absent(
    name: str, commit: str, absent: Sequence[str], paths: Iterable[str], *, key: str = "bids_names"
) -> None:
    """Every path that the recipe's ``key`` names must be there: else it would silently leave the table."""
    if not absent:
        return
    near = difflib.get_close_matches(absent[0], [path for path in paths if path.endswith(IMAGES)], n=1, cutoff=0)
    hint = f"The nearest that it has is {near[0]}" if near else "It has no NIfTI files"
    raise SourceDataError(
        f"dataset {name}: its {key} names {absent[0]}, which it does not have at {commit[:10]}. {hint}"
    )


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
    for split in dataset.splits:
        if split not in SPLITS:
            raise SourceDataError(f"dataset {name}: splits has {split!r}; it must be one of {', '.join(SPLITS)}")
    proposed: dict[str, str] = {}
    for subject, (split, *others) in splits_by_subject(dataset.splits).items():
        if other := next((one for one in others if one != split), None):
            raise SourceDataError(f"dataset {name}: {subject} is in two splits, {split} and {other}")
        if subject not in subjects:
            raise SourceDataError(f"dataset {name}: splits names {subject}, which it does not have")
        proposed[subject] = split
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
    return dataclasses.replace(
        report, notes=(*remarks, *_unpinned(here), *_replaced(here, known), *_notes(here, known))
    )


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


def _replaced(here: Iterable[Scan], known: Mapping[str, Scan]) -> Iterable[str]:
    """What became of a thickness that stood in the table, which somebody may have typed."""
    rows = ((known[scan.name], scan) for scan in here if scan.name in known)
    told = [
        f"{new.name} {old.thickness} -> {new.thickness or 'unknown'}"
        for old, new in rows
        if old.thickness not in ("", new.thickness)
    ]
    if told:
        yield f"slice thickness in mm, replaced by what the sidecars say: {_first(told)}"


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
