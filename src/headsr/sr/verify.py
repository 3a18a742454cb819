"""Are the results of ``headsr sr`` on disk what it made, and would it make them so today? Every byte is read."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headsr.files import UnreadableError, read_json, sha256_of, sidecar_of, tree_files
from headsr.render.describe import is_by_headsr
from headsr.render.ours import is_ours
from headsr.scans import SCAN_PATTERN, SUFFIXES
from headsr.sr.record import Said, damages_of, of_the_code, read_said
from headsr.verify import Finding, State, Verdict, changes

AGAIN = "the same headsr sr command makes anew what is not as it should be, and leaves the rest as it is"
_DESCRIPTION = "dataset_description.json"
_STORE = ".ome.zarr"
_LOOKED_AT = (".nii", ".nii.gz", ".json", ".html")
_DERIVATIVE = re.compile(rf"({SCAN_PATTERN})_(?:res-hi_)?desc-[A-Za-z0-9]+_({'|'.join(SUFFIXES)})\..+")


_BESIDE = re.compile(r"(.+)_(?:residual(?:-[a-z0-9]+)?|uncertainty)\.(?:nii|nii\.gz|json)")


def verify_made(places: Sequence[str | os.PathLike[str]]) -> Verdict:
    """Compare results with what their sidecars say: a place is a folder of them, or one of their volumes or sidecars.

    Reads only. Raises ValueError for a place that holds no result.
    """
    looked = _Looked()
    for place in map(Path, places):
        before = looked.number
        if place.is_dir() and not place.name.endswith(_STORE):
            looked.look_in(place)
        else:
            looked.look_at_named(sidecar_of(str(place).removesuffix(_STORE).removesuffix(".json")))
        if looked.number == before:
            raise ValueError(f"{place}: holds no result of headsr sr. Name its folder of results, or one of them")
    return Verdict(len(looked.whole), tuple(looked.findings))


@dataclass
class _Looked:
    """What was found so far; ``named`` are the files that a result answers for."""

    findings: list[Finding] = field(default_factory=list)
    whole: set[Path] = field(default_factory=set)
    named: set[Path] = field(default_factory=set)

    @property
    def number(self) -> int:
        return len(self.findings) + len(self.whole)

    def look_in(self, folder: Path) -> None:
        """Every result below a folder, and what lies there of results that were never finished."""
        files = [path for path in tree_files(folder) if _is_looked_at(path.relative_to(folder))]
        for path in files:
            if path.suffix == ".json" and (_may_be_a_result(path) or _lies_beside_ours(path)):
                self.look_at(path)
        self._look_for_unfinished(files)
        description = folder / _DESCRIPTION
        if any(folder.glob("sub-*")) and self.number:
            self._look_at_description(description)

    def look_at_named(self, sidecar: Path) -> None:
        """A result that somebody named; nothing where a sidecar lies that headsr sr did not write."""
        if not sidecar.exists() or _may_be_a_result(sidecar) or _lies_beside_ours(sidecar):
            self.look_at(sidecar)

    def look_at(self, sidecar: Path) -> None:
        """One result, by its sidecar."""
        self.named.add(sidecar)
        if not sidecar.exists():
            self._found(State.MISSING, sidecar, "no result was finished here, or it was deleted")
            return
        try:
            said = read_said(sidecar)
        except UnreadableError as error:
            self._found(State.DAMAGED, sidecar, str(error).removeprefix(f"{sidecar}: "))
            return
        paths = [sidecar.parent / name for name in said.outputs]
        self.named.update(paths)
        damages = damages_of(sidecar, said)
        for path, damage in damages.items():
            self._found(State.DAMAGED if os.path.lexists(path) else State.MISSING, path, damage)
        if reason := _staleness(sidecar, said):
            self._found(State.STALE, sidecar, reason)
        self.whole.update(path for path in [sidecar, *paths] if path not in damages)

    def _look_for_unfinished(self, files: Iterable[Path]) -> None:
        parts = defaultdict(list)
        for path in files:
            if path not in self.named and is_ours(path):
                parts[_result_of(path)].append(path)
        for result, paths in parts.items():
            if result not in self.named and not _is_of_others(result):
                self._found(State.MISSING, result, f"it was never finished; {paths[0].name} was to lie beside it")

    def _look_at_description(self, path: Path) -> None:
        if not path.exists():
            self._found(State.MISSING, path, "without it the folder is no BIDS dataset")
        elif not _says(path):
            self._found(State.DAMAGED, path, "it does not say that headsr made the dataset")
        else:
            self.whole.add(path)

    def _found(self, state: State, path: Path, reason: str) -> None:
        self.findings.append(Finding(state, str(path), reason))


def _is_looked_at(path: Path) -> bool:
    hidden = any(part.startswith(".") or part.endswith(_STORE) for part in path.parts)
    return not hidden and path.name.endswith(_LOOKED_AT) and path.name != _DESCRIPTION


def _may_be_a_result(sidecar: Path) -> bool:
    """Whether a JSON file says of more files than one: sidecars of what lies beside a result do not."""
    held = _headsr_of(sidecar)
    return "outputs" in held or "seal" in held


def _lies_beside_ours(sidecar: Path) -> bool:
    """Whether a JSON file that cannot be read belongs to a volume that headsr made."""
    if _headsr_of(sidecar):
        return False
    images = (sidecar.with_suffix(ending) for ending in (".nii.gz", ".nii"))
    return any(image.exists() and is_ours(image) for image in images)


def _headsr_of(sidecar: Path) -> dict[str, Any]:
    try:
        held = read_json(sidecar)["headsr"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return held if isinstance(held, dict) else {}


def _is_of_others(sidecar: Path) -> bool:
    """Whether a volume is one that the workflow or ``headsr render`` made: its sidecar does not say what sr's do."""
    held = _headsr_of(sidecar)
    return bool(held) and "follows_from" not in held


def _result_of(part: Path) -> Path:
    """The sidecar of the result that a file belongs to, by its name."""
    if named := _DERIVATIVE.fullmatch(part.name):
        return part.with_name(f"{named[1]}_res-hi_desc-sr_{named[2]}.json")
    beside = _BESIDE.fullmatch(part.name)
    return (
        part.with_name(f"{beside[1]}.json")
        if beside
        else sidecar_of(str(part).removesuffix(".html").removesuffix(".json"))
    )


def _says(description: Path) -> bool:
    try:
        return is_by_headsr(description)
    except (OSError, ValueError):
        return False


def _staleness(sidecar: Path, said: Said) -> str:
    """Why the same command would make another result today; '' where it would not, as far as can be told from here."""
    for scan, known in zip(_sources_of(sidecar), said.follows_from.get("scans", []), strict=False):
        if scan.is_file() and sha256_of(scan) != known:
            return f"made from another {scan} than the one that lies there now"
    method = said.follows_from.get("method")
    try:
        now = of_the_code(method["kind"])
    except (ValueError, LookupError, TypeError):
        return "made by a method that headsr does not know now"
    return next(changes({key: said.follows_from.get(key) for key in now}, now), "")


def _sources_of(sidecar: Path) -> Iterator[Path]:
    """Where the scans of a result of a BIDS folder lie, by the link of its dataset."""
    root = next((folder for folder in sidecar.absolute().parents if (folder / _DESCRIPTION).is_file()), None)
    try:
        raw = read_json(root / _DESCRIPTION)["DatasetLinks"]["raw"]
        sources = read_json(sidecar)["Sources"]
        yield from (root / raw / source.removeprefix("bids:raw:") for source in sources)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
