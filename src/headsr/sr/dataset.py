"""The same command on a BIDS folder: every scan by itself in a pool of processes, into a folder of derivatives."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

from headsr.left_out import left_out
from headsr.machine import cores
from headsr.processes import begin_child, children_begin
from headsr.render.describe import describe_folder
from headsr.render.plan import time_said
from headsr.scans import IMAGES, image_stem, parse_name
from headsr.sr.cost import ResourcesError
from headsr.sr.outputs import derivative_at
from headsr.sr.run import OutsideTrainingError, Request, foretell, super_resolve
from headsr.volumes import VolumeError
from headsr.words import shown

_LESS = "Try --workers 1, or larger voxels: --voxel MM"


@dataclass(frozen=True)
class Outcome:
    """What became of one scan, ``done``, ``kept`` as it was, ``rejected`` or ``failed``, and what there is to say."""

    scan: Path
    state: str
    words: str = ""


@dataclass(frozen=True)
class Found:
    """The scans of a BIDS folder, and the images in its folders of anatomy that are none that headsr takes.

    ``unclear`` are those that lie in another person's folder, whose results they would write over.
    """

    scans: tuple[Path, ...]
    others: tuple[Path, ...]
    unclear: tuple[Outcome, ...] = ()

    def left_out(self, root: Path) -> list[str]:
        """For every reason why images of the folder are left out, how many there are and the first of them."""
        scans, others = ([path.relative_to(root).as_posix() for path in paths] for paths in (self.scans, self.others))
        return left_out(others, set(scans))


def scans_in(bids: str | os.PathLike[str], *, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> Found:
    """The anatomical scans of a BIDS folder, by name; with labels only those of these people and sessions.

    Labels are whole ones, with or without ``sub-`` and ``ses-``. Raises ValueError for a folder without people or
    scans, and for a label that it does not have.
    """
    root = Path(bids)
    subjects = _labelled(root, [root], "sub-", participants)
    if not subjects:
        raise ValueError(f"{root}: has no folders sub-*, as a BIDS dataset has. Name a scan, or a BIDS folder")
    folders = [*([] if sessions else subjects), *_labelled(root, subjects, "ses-", sessions)]
    images = sorted(path for folder in folders for path in folder.glob("anat/*") if _is_image(path))
    twins = {path for path in images if path.with_name(f"{path.name}.gz") in images}  # results of both have one name
    named = {
        path for path in images if path.name.endswith(IMAGES) and parse_name(image_stem(path.name)) is not None
    } - twins
    others = tuple(path for path in images if path not in named)
    if not named:
        known = f", but {len(others)} images of other names, as {others[0]}" if others else ""
        raise ValueError(f"{root}: has no sub-*/[ses-*/]anat/sub-*_T1w.nii.gz (T2w, PDw, FLAIR) of those people{known}")
    unclear = tuple(outcome for path in sorted(named) if (outcome := _misnamed(path, root)) is not None)
    return Found(tuple(sorted(named - {outcome.scan for outcome in unclear})), others, unclear)


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(IMAGES)


def _misnamed(path: Path, root: Path) -> Outcome | None:
    """What is wrong with a name by which a scan would write over another's result."""
    labels = [part for part in image_stem(path.name).split("_") if part.startswith(("sub-", "ses-"))]
    folder = root.joinpath(*labels, "anat")
    if path.parent == folder:
        return None
    return Outcome(path, "rejected", f"{path}: by its name it belongs into {folder}. Move it there, or rename it")


def super_resolve_dataset(
    found: Found, out: str | os.PathLike[str], asked: Request, *, source: Path, workers: int
) -> list[Outcome]:
    """Make the results of all scans, each by itself; one that fails stops no other. Says how far it is.

    ``asked`` says how, but for scans and names; its memory is shared by ``workers`` processes, which end with this one.
    """
    _refuse_place(Path(out), source)
    describe_folder(out, source=source, method=asked.method)
    workers = max(1, min(workers, len(found.scans)))
    requests = [
        replace(
            asked,
            scans=(path,),
            named=partial(derivative_at, out, path.relative_to(source).as_posix()),
            memory=asked.memory // workers,
        )
        for path in found.scans
    ]
    outcomes, total, begun = list(found.unclear), len(found.unclear) + len(requests), time.monotonic()

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(_line(outcomes, len(found.unclear), total, time.monotonic() - begun), flush=True)

    # A process that is killed takes all of its pool with it: what it took is made again, each scan by itself.
    for request in _run(requests, workers, add):
        scan = request.scans[0]
        if _run([request], 1, add):
            add(Outcome(scan, "failed", f"{scan}: its process was killed, most often for memory. {_LESS}"))
    return sorted(outcomes, key=lambda outcome: outcome.scan)


def _run(requests: Sequence[Request], workers: int, add: Callable[[Outcome], None]) -> list[Request]:
    """Make what is asked for and ``add`` each outcome as it comes; what its pool ended before is returned."""
    ended = []
    how = {"mp_context": get_context("spawn"), "initializer": begin_child, "initargs": (max(1, cores() // workers),)}
    with ProcessPoolExecutor(workers, **how) as pool:
        with children_begin():
            running = {_submitted(pool, request): request for request in requests}
        try:
            for future in as_completed(running):
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    ended.append(running[future])
                else:
                    add(outcome)
        except (KeyboardInterrupt, SystemExit):
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise
    return ended


def _submitted(pool: ProcessPoolExecutor, request: Request) -> Future[Outcome]:
    try:
        return pool.submit(_outcome_of, request)
    except BrokenProcessPool as error:  # it has ended while it was given others
        future: Future[Outcome] = Future()
        future.set_exception(error)
        return future


def _refuse_place(out: Path, source: Path) -> None:
    if (out.exists() and not out.is_dir()) or out.name.endswith(IMAGES):
        raise ValueError(f"{out}: the results of a BIDS folder go into a folder. Name one")
    if out.resolve() == source.resolve():
        raise ValueError(f"{out}: holds the scans themselves. Name another folder, such as {out}/derivatives/headsr")


def _line(outcomes: Sequence[Outcome], before: int, total: int, seconds: float) -> str:
    """How far a folder is, of which ``before`` outcomes were known at once, and what became of the last scan."""
    last, done = outcomes[-1], len(outcomes)
    left = f", {time_said(seconds / (done - before) * (total - done))} left" if done < total else ""
    return f"{done} of {total}{left}: {last.state} {last.words or last.scan}"


def _outcome_of(request: Request) -> Outcome:
    scan = request.scans[0]
    try:
        with warnings.catch_warnings(record=True) as warned, redirect_stdout(io.StringIO()):
            warnings.simplefilter("always", UserWarning)
            made = super_resolve(request, foretell(request), quiet=True)
        notes = "; ".join(shown(str(one.message)) for one in warned if one.category is UserWarning)
        return Outcome(scan, "done" if made else "kept", f"{scan}: {notes}" if notes else "")
    except (VolumeError, OutsideTrainingError) as error:
        return Outcome(scan, "rejected", _words_of(scan, error))
    except (ResourcesError, MemoryError, ValueError, OSError, FloatingPointError, RuntimeError) as error:
        return Outcome(scan, "failed", _words_of(scan, error))


def _words_of(scan: Path, error: Exception) -> str:
    """What an error says of a scan, in which it may not be named."""
    said = shown(str(error)) or "memory ran out"
    return said if str(scan) in said else f"{scan}: {said}"


def _labelled(root: Path, parents: Sequence[Path], prefix: str, labels: Sequence[str]) -> list[Path]:
    """The folders of these labels in any of the parents; without labels all. ValueError for one that none has."""
    folders = sorted(path for parent in parents for path in parent.glob(f"{prefix}*") if path.is_dir())
    known = {path.name.removeprefix(prefix) for path in folders}
    wanted = {label.removeprefix(prefix) for label in labels}
    if unknown := wanted - known:
        has = f"it has {', '.join(sorted(known))}" if known else f"it has no {prefix}*"
        raise ValueError(f"{root}: has no {', '.join(prefix + label for label in sorted(unknown))}; {has}")
    return [path for path in folders if not wanted or path.name.removeprefix(prefix) in wanted]
