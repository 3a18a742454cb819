"""The same command on a BIDS folder: every scan by itself in a pool of processes, into a folder of derivatives."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from headsr.render.describe import describe_folder
from headsr.render.plan import cores
from headsr.scans import parse_name
from headsr.sr.cost import ResourcesError
from headsr.sr.outputs import derivative_at
from headsr.sr.run import OutsideTrainingError, Request, foretell, super_resolve
from headsr.volumes import VolumeError
from headsr.words import shown

_IMAGES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Outcome:
    """What became of one scan: ``done``, ``kept`` as it was, ``rejected`` or ``failed``, and why."""

    scan: Path
    state: str
    words: str = ""


@dataclass(frozen=True)
class Found:
    """The scans of a BIDS folder, and the images in its folders of anatomy that are none that headsr takes."""

    scans: tuple[Path, ...]
    others: tuple[Path, ...]


def scans_in(bids: str | os.PathLike[str], *, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> Found:
    """The anatomical scans of a BIDS folder, by name; with labels only those of these people and sessions.

    Labels are taken with and without ``sub-`` and ``ses-``. Raises ValueError for a folder without people, and for a
    label that it does not have.
    """
    root = Path(bids)
    subjects = sorted(path for path in root.glob("sub-*") if path.is_dir())
    if not subjects:
        raise ValueError(f"{root}: has no folders sub-*, as a BIDS dataset has. Name a scan, or a BIDS folder")
    chosen = _labelled(subjects, "sub-", participants, root)
    folders = [anat for subject in chosen for anat in _sessions_of(subject, sessions) if anat.is_dir()]
    images = sorted(path for folder in folders for path in folder.iterdir() if path.name.endswith(_IMAGES))
    there = set(images)
    twins = {path for path in images if path.with_name(f"{path.name}.gz") in there}  # results of both have one name
    named = [path for path in images if parse_name(_stem(path)) is not None and path not in twins]
    return Found(tuple(named), tuple(path for path in images if path not in set(named)))


def super_resolve_dataset(
    found: Found, out: str | os.PathLike[str], asked: Request, *, source: Path, workers: int
) -> list[Outcome]:
    """Make the results of all scans, each by itself; one that fails stops no other.

    ``asked`` says how, but for scans and names; its memory is shared by ``workers`` processes.
    """
    describe_folder(out, source=source, method=asked.method)
    requests = [
        replace(asked, scans=(path,), named=partial(derivative_at, out, _stem(path)), memory=asked.memory // workers)
        for path in found.scans
    ]
    threads, outcomes = max(1, cores() // workers), []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(threads,)) as pool:
        running = {pool.submit(_outcome_of, request): request.scans[0] for request in requests}
        try:
            for future in as_completed(running):
                outcomes.append(_of_process(future, running[future]))
                last = outcomes[-1]
                print(f"{len(outcomes)} of {len(requests)}: {last.scan} {last.state}. {last.words}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise
    return sorted(outcomes, key=lambda outcome: outcome.scan)


def _begin(threads: int) -> None:
    """What every process does first: an interrupt is the business of the one that has begun it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def _of_process(future: Future[Outcome], scan: Path) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(scan, "failed", f"{scan}: its process was killed, most often for memory. Try --workers 1")


def _outcome_of(request: Request) -> Outcome:
    scan = request.scans[0]
    try:
        made = super_resolve(request, foretell(request), say=lambda words: None)
        return Outcome(scan, "done" if made else "kept")
    except (VolumeError, OutsideTrainingError) as error:
        return Outcome(scan, "rejected", shown(str(error)))
    except (ResourcesError, MemoryError, ValueError, OSError, FloatingPointError, RuntimeError) as error:
        return Outcome(scan, "failed", shown(str(error)))


def _sessions_of(subject: Path, labels: Sequence[str]) -> list[Path]:
    sessions = sorted(path for path in subject.glob("ses-*") if path.is_dir())
    wanted = {_bare(label, "ses-") for label in labels}
    chosen = [path for path in sessions if not labels or _bare(path.name, "ses-") in wanted]
    return [path / "anat" for path in ([] if labels else [subject]) + chosen]


def _labelled(folders: Sequence[Path], prefix: str, labels: Sequence[str], root: Path) -> list[Path]:
    known = {_bare(path.name, prefix): path for path in folders}
    wanted = [_bare(label, prefix) for label in labels] or list(known)
    unknown = [label for label in wanted if label not in known]
    if unknown:
        raise ValueError(f"{root}: has no {prefix}{', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return [known[label] for label in dict.fromkeys(wanted)]


def _bare(label: str, prefix: str) -> str:
    return label.removeprefix(prefix)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
