"""All that is wanted of a graphics card that is lent for a quarter of an hour, in one call of less than eight minutes.

Run: python3 benchmarks/gpu/run.py PACK OUT [--seconds 470] [--training-seconds 240] [--batch N] [--begin WEIGHTS]

PACK is what pack.py made. Needs nothing but a Python with PyTorch and NumPy; what else is lacking comes from PACK. Each
part is a process of its own with so much time and no more, and one that fails stops no other. OUT gets summary.json and
summary.md anew with every number, the whole log, and the trained weights with their history (docs/gpu.md).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measured import number_in

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEAST_SECONDS = 5.0  # with less left, a part is not begun
KEPT_LINES = 25


@dataclass(frozen=True)
class Part:
    """One process: its command, the seconds that it may take, and those that it leaves to what comes after it."""

    name: str
    command: tuple[str, ...]
    seconds: float
    leaves: float = 0.0


@dataclass
class Outcome:
    """What became of a part. ``state`` is running, done, failed, out of time or not begun."""

    name: str
    state: str = "running"
    seconds: float = 0.0
    numbers: dict[str, list] = field(default_factory=dict)
    last_lines: list[str] = field(default_factory=list)


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=470)
    parser.add_argument("--training-seconds", type=float, default=240)
    parser.add_argument("--batch", type=int, help="of the training (default: the largest that is quick)")
    parser.add_argument("--begin", type=Path, help="weights or the state of a segment that the training goes on from")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()  # the parts run in the checkout
    arguments.begin = arguments.begin and arguments.begin.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("was told to end"))  # which ends the part that runs too
    summary = Summary(arguments.out)
    scratch = Path(tempfile.mkdtemp())
    site, lacking = unpack_wheels(arguments.pack, scratch / "site")
    summary.note(f"from the pack: {', '.join(lacking) or 'nothing'}")
    index = unpack_anatomies(arguments.pack, scratch / "anatomies")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(site)]), "PYTHONUNBUFFERED": "1"}
    parts = parts_of(arguments, index)
    run_parts(parts, summary, deadline=begun + arguments.seconds, environment=environment)
    print((arguments.out / "summary.md").read_text(encoding="utf-8"))


def parts_of(arguments: argparse.Namespace, index: Path) -> list[Part]:
    """The parts by how much they matter: what is cut for time are the last ones."""

    def script(name: str, *options: object) -> tuple[str, ...]:
        return (sys.executable, str(HERE / f"{name}.py"), *map(str, options))

    tests = (sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", str(ROOT / "tests" / "cuda"))
    training = ["--seconds", arguments.training_seconds]
    training += ["--batch", arguments.batch] if arguments.batch else []
    training += ["--begin", arguments.begin] if arguments.begin else []
    weights = arguments.out / "unrolled" / "weights.safetensors"
    return [
        Part("card", script("card"), 40),
        Part("tests", tests, 70, leaves=150),
        Part("training", script("training", index, arguments.out, *training), arguments.training_seconds + 30),
        Part("inference", script("inference", index, weights), 40, leaves=20),
        Part("rates", script("rates"), 60, leaves=20),
        Part("cube", script("cube"), 300),
    ]


def unpack_wheels(pack: Path, site: Path) -> tuple[Path, list[str]]:
    """Unpack those wheels of this Python that bring modules which are not here, into ``site``; and their names."""
    site.mkdir(parents=True)
    folder, unpacked = pack / "wheels" / f"{sys.version_info[0]}.{sys.version_info[1]}", []
    for path in sorted(folder.glob("*.whl.xz")):
        with lzma.open(path) as stream, tempfile.TemporaryFile() as wheel:
            wheel.write(stream.read())
            with zipfile.ZipFile(wheel) as content:
                if not all(map(importlib.util.find_spec, modules_in(content))):
                    content.extractall(site)
                    unpacked.append(path.name.split("-")[0])
    if not folder.exists():
        packed = ", ".join(sorted(one.name for one in (pack / "wheels").glob("*"))) or "none"
        unpacked.append(f"no wheels for this Python ({folder.name}; packed for: {packed})")
    return site, unpacked


def modules_in(wheel: zipfile.ZipFile) -> set[str]:
    """The modules at the top of a wheel."""
    names = {name.split("/")[0] for name in wheel.namelist() if name.endswith((".py", ".so"))}
    return {name.split(".")[0] for name in names if not name.endswith((".dist-info", ".data"))}


def unpack_anatomies(pack: Path, folder: Path) -> Path:
    """Unpack the anatomies beside their index, whose path is returned."""
    folder.mkdir(parents=True)

    def unpack(path: Path) -> None:
        (folder / path.name.removesuffix(".xz")).write_bytes(lzma.decompress(path.read_bytes()))

    with ThreadPoolExecutor() as pool:
        list(pool.map(unpack, (pack / "anatomies").glob("*.xz")))
    index = folder / "index.json"
    index.write_bytes((pack / "anatomies" / "index.json").read_bytes())
    return index


class Summary:
    """What is known so far, in OUT: summary.json for machines, summary.md for people, log.txt of all that was said."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.outcomes, self.notes = out, [], []
        self.log = (out / "log.txt").open("w", encoding="utf-8")

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.write()

    def begin(self, name: str) -> Outcome:
        self.outcomes.append(Outcome(name))
        self.write()
        return self.outcomes[-1]

    def hear(self, outcome: Outcome, line: str) -> None:
        """Take one line that a part printed."""
        self.log.write(f"{outcome.name}: {line}\n")
        self.log.flush()
        number = number_in(line)
        if number is None:
            outcome.last_lines = [*outcome.last_lines, line][-KEPT_LINES:]
        else:
            outcome.numbers[number["number"]] = [number["value"], number["unit"]]
            self.write()

    def write(self) -> None:
        found = {"notes": self.notes, "parts": [asdict(outcome) for outcome in self.outcomes]}
        self._replace("summary.json", json.dumps(found, indent=1))
        self._replace("summary.md", "\n".join([*self.notes, *map(_section, self.outcomes)]))

    def _replace(self, name: str, text: str) -> None:
        partial = self.out / f".{name}"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self.out / name)


def _section(outcome: Outcome) -> str:
    rows = [f"| {name} | {value} {unit} |" for name, (value, unit) in outcome.numbers.items()]
    table = ["| what | measured |", "|---|---|", *rows] if rows else []
    said = ["```", *outcome.last_lines, "```"] if outcome.last_lines else []
    return "\n".join(["", f"## {outcome.name}: {outcome.state}, {outcome.seconds:.0f} s", "", *table, "", *said])


def run_parts(
    parts: Sequence[Part],
    summary: Summary,
    *,
    deadline: float,
    environment: dict[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run one part after the other; each has its own time or what is left until the ``deadline``, if that is less."""
    for part in parts:
        allowed = min(part.seconds, deadline - clock() - part.leaves)
        outcome, begun = summary.begin(part.name), clock()
        if allowed < LEAST_SECONDS:
            outcome.state = "not begun"
        else:
            try:
                outcome.state = run_part(part, allowed, lambda line: summary.hear(outcome, line), environment)  # noqa: B023
            except OSError as error:
                outcome.state, outcome.last_lines = "failed", [repr(error)]
        outcome.seconds = round(clock() - begun, 1)
        summary.write()


def run_part(part: Part, seconds: float, hear: Callable[[str], None], environment: dict[str, str] | None) -> str:
    """Run a part in a process group of its own, which is killed after ``seconds``, or when this process ends."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen(part.command, cwd=ROOT, env=environment, process_group=0, **how)
    listener = threading.Thread(target=lambda: [hear(line.rstrip("\n")) for line in process.stdout], daemon=True)
    listener.start()
    try:
        state = "done" if process.wait(seconds) == 0 else "failed"
    except subprocess.TimeoutExpired:
        state = "out of time"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the children that it has started too
    process.wait()
    listener.join(5)
    return state


if __name__ == "__main__":
    main()
