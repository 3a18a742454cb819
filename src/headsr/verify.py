"""Do the results on disk follow from the scan table, the recipes and the code as they are now?

Every job's record (headsr.provenance) is compared with the plan and with the records of the jobs whose outputs it read.
Nothing here trusts a modification time or ``.snakemake``.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from headsr.files import UnreadableError, sha256_of, tree_files, tree_hash
from headsr.plan import PlannedJob
from headsr.provenance import (
    Content,
    Record,
    RecordError,
    is_store_mark,
    read_record,
    record_path,
    size_of,
)
from headsr.typed_json import read_as

_ALONE = 3  # so many outputs of a rule that the next run makes have lines of their own


class State(StrEnum):
    """What can be wrong with an output. An orphan is a file that nothing in this configuration makes."""

    STALE = "stale"
    DAMAGED = "damaged"
    MISSING = "missing"
    ORPHAN = "orphan"


@dataclass(frozen=True)
class Finding:
    """One file that is not as it should be, and why.

    ``remake`` is the output to force so that it is made anew; '' where that of another file does it. ``made_by`` is the
    rule that the next run makes it by; '' where it does not.
    """

    state: State
    path: str
    reason: str
    remake: str = ""
    made_by: str = ""

    def __str__(self) -> str:
        return f"{self.state.upper():8}{self.path}: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """What was verified: how many outputs of the plan are ``whole``, temporary ones left out, and what is not."""

    whole: int
    findings: tuple[Finding, ...]

    def of(self, state: State) -> list[Finding]:
        """The findings of one state."""
        return [finding for finding in self.findings if finding.state == state]

    @property
    def remake(self) -> list[str]:
        """The outputs to force; whatever follows from them is made anew with them."""
        return list(dict.fromkeys(finding.remake for finding in self.findings if finding.remake))

    @property
    def has_begun(self) -> bool:
        """Whether anything of the plan has been made."""
        return self.whole > 0 or any(not finding.made_by for finding in self.findings)

    def summary(self) -> str:
        """What was found, for a person: a line per finding, and the counts.

        What the next run makes is a line per rule: of a run that has only begun it is most of the plan.
        """
        to_make = Counter(finding.made_by for finding in self.findings if finding.made_by)
        counts = ", ".join(f"{len(self.of(state))} {state}" for state in State)
        lines = [str(finding) for finding in self.findings if to_make[finding.made_by] <= _ALONE]
        lines += [
            f"{State.MISSING.upper():8}{number} outputs of {rule}: the next run makes them"
            for rule, number in to_make.items()
            if number > _ALONE
        ]
        return "\n".join([*lines, f"{self.whole} outputs as they should be; {counts}"])

    def text(self) -> str:
        """The same of a workflow's results, with the way out."""
        if not self.has_begun:
            return f"nothing has been made yet: the next run makes all {len(self.findings)} outputs"
        lines = [self.summary()]
        if self.remake:
            lines.append("stale, damaged: made anew, with all that follows, by adding to your snakemake command")
            lines.append(f"  --forcerun {' '.join(self.remake)}")
        if lost := [finding.path for finding in self.of(State.MISSING) if not finding.made_by]:
            lines.append("missing, but nothing waits for it: made again by adding to your snakemake command")
            lines.append(f"  -- {' '.join(lost)}")
        if self.of(State.ORPHAN):
            lines.append(
                "orphan: no job of this configuration makes them; they are another configuration's, or your own"
            )
        return "\n".join(lines)


def verify_results(jobs: Sequence[PlannedJob], results: str | os.PathLike[str], *, deep: bool = False) -> Verdict:
    """Compare every output of the plan with its record, and every record with the plan.

    ``jobs`` must be sorted so that each follows those whose outputs it reads. Sizes are always compared; ``deep`` reads
    all content and compares hashes too. Reads only. Paths in the verdict are relative to the working directory.
    """
    comparison = _Comparison(results, deep, {path for job in jobs if job.runs for path in job.outputs})
    findings = [finding for job in jobs for finding in comparison.findings_of(job)]
    kept = {path for job in jobs for path in job.outputs if path not in job.temporary}
    whole = kept - {finding.path for finding in findings}
    return Verdict(len(whole), (*findings, *_orphans(jobs, comparison.beside, results)))


@dataclass
class _Comparison:
    """What is known after each job: what its outputs should hold, and which of them are stale."""

    results: str | os.PathLike[str]
    deep: bool
    to_make: set[str]
    contents: dict[str, Content] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)

    def findings_of(self, job: PlannedJob) -> Iterator[Finding]:
        kept = [path for path in job.outputs if path not in job.temporary]
        present = [path for path in kept if os.path.exists(path)]
        for path in kept:
            if path not in present:
                yield _missing(path, job)
        try:
            record = read_record(record_path(self.results, job.log))
        except RecordError as error:
            self.stale.update(present)
            yield from (Finding(State.DAMAGED, path, str(error), job.outputs[0]) for path in present)
            return
        if record is None:
            # What another job wrote beside its outputs, and this one would make again, is that one's.
            present = [path for path in present if os.path.normpath(path) not in self.beside]
            self.stale.update(present)
            reason = "no record says what it was made from"
            yield from (Finding(State.STALE, path, reason, job.outputs[0]) for path in present)
            return
        self.beside.update(os.path.normpath(os.path.join(self.results, name)) for name in record.beside)
        held = {path: record.outputs.get(self._inside(path)) for path in job.outputs}
        self.contents.update({path: content for path, content in held.items() if content is not None})
        yield from self._staleness(job, record, present) or self._damages(job, record, present)

    def _staleness(self, job: PlannedJob, record: Record, present: Sequence[str]) -> list[Finding]:
        reason, remake = self._difference(job, record), job.outputs[0]
        if not reason and (source := next((path for path in job.inputs if path in self.stale), None)):
            reason, remake = f"follows from {source}", ""
        if not reason:
            return []
        self.stale.update(job.outputs)
        # A temporary output that is gone speaks for the chain that was made from it.
        shown = [path for path in job.outputs if path in present or path in job.temporary]
        return [Finding(State.STALE, path, reason, remake) for path in shown]

    def _difference(self, job: PlannedJob, record: Record) -> str:
        """Why a job would not make today what its record says that it made; '' where it would."""
        if record.rule != job.rule:
            return f"made by {record.rule}, and now {job.rule} makes it"
        recorded = {name: value for name, value in record.params.items() if name in job.params}
        if change := next(changes(recorded, job.params), ""):
            return change
        if change := next(changes(record.stage, job.stage), ""):
            return f"the version of {change}"
        planned = {self._inside(path) for path in job.inputs}
        if other := sorted(record.sources.keys() ^ planned):
            with_or_without = "without" if other[0] in planned else "with"
            return f"made {with_or_without} {other[0]}, and now it is the other way round"
        for path in job.inputs:
            if path in self.stale:
                continue  # that says more than its bytes
            if path not in self.contents:
                return f"no record says what its {path} was made from"
            if self.contents[path].sha256 != record.sources[self._inside(path)]:
                return f"made from another {path} than the one that was recorded"
        if unknown := {self._inside(path) for path in job.outputs} - set(record.outputs):
            return f"made before {job.rule} had the output {min(unknown)}"
        return ""

    def _damages(self, job: PlannedJob, record: Record, present: Sequence[str]) -> Iterator[Finding]:
        for path in present:
            if damage := damage_of(path, self.contents[path], deep=self.deep):
                yield Finding(State.DAMAGED, path, damage, job.outputs[0])
        for name, content in record.beside.items():
            path = os.path.normpath(os.path.join(self.results, name))
            if path in self.to_make:  # by a job that says so itself
                continue
            if job.runs and not os.path.exists(path):
                yield _missing(path, job)
                continue
            damage = damage_of(path, content, deep=self.deep) if os.path.exists(path) else "it was deleted"
            if damage:
                yield Finding(State.DAMAGED, path, f"{damage}; {job.rule} writes it beside its output", job.outputs[0])

    def _inside(self, path: str) -> str:
        return os.path.relpath(path, self.results)


def _missing(path: str, job: PlannedJob) -> Finding:
    if job.runs:
        return Finding(State.MISSING, path, f"the next run makes it ({job.rule})", made_by=job.rule)
    return Finding(State.MISSING, path, f"{job.rule} made it, and all that is made from it is there")


def changes(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Which values of two JSON trees differ, by their dotted names."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from changes(before.get(key, _ABSENT), after.get(key, _ABSENT), f"{name}.{key}" if name else key)
    elif before != after:
        yield f"{name} was {_short(before)} and is {_short(after)}"


_ABSENT = object()


def _short(value: Any) -> str:
    text = "absent" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def damage_of(path: str, content: Content, *, deep: bool) -> str:
    """What is wrong with a file that exists; '' for nothing."""
    size = size_of(path)
    if size != content.bytes:
        return f"{size} bytes, and {content.bytes} when it was made"
    if deep and sha256_of(path) != content.sha256:
        return "its content is not what was made (SHA-256)"
    if deep and is_store_mark(path) and not _store_is_whole(path):
        return "a file of the store is not what was made (SHA-256)"
    return ""


def _store_is_whole(mark: str) -> bool:
    try:
        attributes = read_as(dict[str, Any], mark, "attributes")
        said = read_as(str, mark, "attributes", *(["headsr"] if "headsr" in attributes else []), "content")
    except UnreadableError:
        return False
    return tree_hash(Path(mark).parent, leaving_out={os.path.basename(mark)}) == said


def _orphans(jobs: Iterable[PlannedJob], beside: set[str], results: str | os.PathLike[str]) -> list[Finding]:
    """Files that no job of the plan makes, in the folders that jobs write to. Other folders are somebody else's."""
    outputs = {os.path.normpath(path) for job in jobs for path in job.outputs}
    stores = {os.path.dirname(path) for path in outputs if is_store_mark(path)}
    inside = {os.path.relpath(path, results) for path in outputs} | _once_made(jobs, results)
    folders = {Path(path).parts[0] for path in inside}
    files = (path for folder in sorted(folders) for path in tree_files(Path(results, folder)))
    unknown = (path for path in files if str(path) not in outputs and str(path) not in beside)
    strays = (path for path in unknown if stores.isdisjoint(map(str, path.parents)))
    return [Finding(State.ORPHAN, str(path), "no job of this configuration makes it") for path in strays]


def _once_made(jobs: Iterable[PlannedJob], results: str | os.PathLike[str]) -> set[str]:
    """The outputs of recorded jobs that are not planned any more, relative to the results folder."""
    planned = {record_path(results, job.log) for job in jobs}
    records = []
    for path in tree_files(Path(results, "records")):
        with contextlib.suppress(RecordError):
            records.append(None if path in planned else read_record(path))
    return {output for record in records if record is not None for output in record.outputs}
