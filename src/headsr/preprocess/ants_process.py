"""ANTs in a process of its own: it can crash the interpreter, and a crash must cost one scan, not a run.

The child loads only ANTs' compiled library (0.2 s), not the ``ants`` package around it (4 s), and calls the two
programs that headsr needs with their documented command-line arguments. One thread and a fixed seed: same inputs, same
bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from headsr.files import unwritable

PROGRAMS = ("N4BiasFieldCorrection", "antsRegistration")
_DETERMINISTIC = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "ANTS_RANDOM_SEED": "1", "OMP_NUM_THREADS": "1"}
_TIMEOUT_S = 3600
_LITTLE = 2**20  # bytes: with less left, a disk was too small for what a program wrote


class AntsError(RuntimeError):
    """ANTs did not produce its output. The message names the scan, the program and what it said."""


def run_ants(program: str, arguments: Sequence[str], *, output: str | os.PathLike[str], scan: str) -> None:
    """Run one of PROGRAMS in a child process; a crash is tried once more.

    ``output`` is the file that the program must write, ``scan`` what the error calls the scan. The program runs in the
    folder of ``output``, and its ``arguments`` name files there without the folder: ANTs takes brackets and commas,
    which folders may have in their names, for its own.
    Raises AntsError when it crashes twice, fails, takes over an hour or leaves no ``output``.
    """
    folder = Path(output).parent
    done = _run_child(program, arguments, folder=folder, scan=scan)
    if done.returncode < 0:
        print(f"{scan}: {program} was killed by signal {-done.returncode}; trying once more", flush=True)
        done = _run_child(program, arguments, folder=folder, scan=scan)
    if done.returncode or not Path(output).is_file():
        refuse_full(output)
        how = f"killed by signal {-done.returncode}, twice" if done.returncode < 0 else f"exit code {done.returncode}"
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise AntsError(
            f"{scan}: {program} failed ({how}). Look at the scan: is it one whole head, the right way up? "
            f"If it is, run again with more memory. It said:\n{said}"
        )


def refuse_full(output: str | os.PathLike[str]) -> None:
    """UnwritableError where the disk of an output that is not whole is full: ITK says it in many words, or in none."""
    if shutil.disk_usage(Path(output).parent).free < _LITTLE:
        raise unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(output)), output)


def _run_child(program: str, arguments: Sequence[str], *, folder: Path, scan: str) -> subprocess.CompletedProcess[str]:
    command = [*_child_command(), program, *arguments]
    environment = {**os.environ, **_DETERMINISTIC}
    if found := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, found.split(os.pathsep)))
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AntsError(f"{scan}: {program} took longer than {_TIMEOUT_S} s. Use a larger voxel_mm") from None


def _child_command() -> list[str]:
    # -P: a random.py in the folder of the project is no part of Python's library.
    return [sys.executable, "-P", "-m", "headsr.preprocess.ants_process"]


def _library() -> object:
    """ANTs' compiled module, loaded by its place: importing ``ants`` would bring in pandas, sklearn and matplotlib."""
    from importlib import machinery, util

    package = util.find_spec("ants")
    if package is None:
        raise SystemExit("antspyx is not installed here. Install headsr with: make")
    spec = machinery.PathFinder.find_spec("lib", list(package.submodule_search_locations))
    if spec is None:
        raise SystemExit("antspyx is installed without its compiled library. Install it again")
    library = util.module_from_spec(spec)
    spec.loader.exec_module(library)
    return library


def main(arguments: Sequence[str]) -> int:
    """Run one ANTs program in this process: ``arguments`` are its name and its own arguments."""
    program, *rest = arguments
    if program not in PROGRAMS:
        raise SystemExit(f"{program!r} is not one of {', '.join(PROGRAMS)}")
    return int(getattr(_library(), program)(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
