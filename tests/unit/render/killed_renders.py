"""Renders that are killed, each in a fork of this program: what a render imports is imported once.

``python killed_renders.py FOLDER`` prints as JSON what ``main`` found.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from known_fields import Waves

from headsr.render import field as rendering
from headsr.render.field import Manner, render
from headsr.render.publish import Outputs

SHAPE = (16, 16, 140)  # three levels of 5, 3 and 1 shards
AMID = 72  # changes to the folder: some shards of two levels are complete by then
DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "a flipped bit": lambda content: content[:99] + bytes([content[99] ^ 4]) + content[100:],
    "empty": lambda content: b"",
}
CHANGES = {
    "field": {"identity": "other waves"},
    "stage": {"stage": "another"},
    "grid": {"shape": (16, 16, 141)},
    "dtype": {"dtype": "uint16"},
    "chunks": {"chunk": 32},
    "air": {"skip_air": True},
}


class Counted(Waves):
    """Waves that follow from the field's name, and a log of how many chunks were evaluated."""

    def __init__(self, identity, log):
        super().__init__(SHAPE)
        self.log, self.phase = log, len(identity)

    def evaluate(self, grid):
        with self.log.open("a") as log:
            log.write("chunk\n")
        return super().evaluate(grid)

    def at(self, x, y, z):
        return super().at(x + self.phase, y, z)


def outputs_in(folder):
    return Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")


def log_of(folder):
    return folder.parent / f"{folder.name}.log"


def evaluations(folder):
    """How many chunks were evaluated for a folder so far."""
    return len(log_of(folder).read_text().split()) if log_of(folder).exists() else 0


def digest(folder):
    """Path -> hash of all that is in a folder, hidden or not; folders too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def changes(event, details, folder):
    """Whether an audit event is about to change something in a folder."""
    if event == "open":
        return str(details[0]).startswith(str(folder)) and str(details[1])[0] in "wa"
    # rmtree names what it deletes relative to the folder that it is in.
    return event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir"} and not str(details[0]).startswith("/proc")


def start(folder, *, kill_at=None, identity="waves", stage=None, shape=SHAPE, **manner):
    """Render in a fork, which kills itself right before the change number ``kill_at``; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        _render(folder, kill_at, identity, stage, shape, Manner(**{"chunk": 16, "shard": 32, **manner}))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _render(folder, kill_at, identity, stage, shape, manner):
    folder.mkdir(parents=True, exist_ok=True)
    field, number = Counted(identity, log_of(folder)), itertools.count(1)

    def watch(event, details):
        if changes(event, details, folder) and next(number) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(watch)
    if stage:
        rendering.STAGE_VERSIONS = {**rendering.STAGE_VERSIONS, "render_volume": stage}
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
        render(field, outputs_in(folder), identity=identity, grid=field.grid.resized(shape), manner=manner)


def ended(child):
    """Wait for a fork: whether it finished, not killed. Raises where it failed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise RuntimeError(f"a render ended with {status}")
    return True


def wrong(folder, whole):
    """What differs from the undisturbed render in a folder whose store is marked as finished."""
    there = digest(folder) if outputs_in(folder).store.exists() else whole
    return [name for name, content in whole.items() if there.get(name) != content]


def killed_at_random_moments(folder, whole, *, kills, finished, seed):
    """Kill renders at random moments, the next one goes on; begin anew when one ends.

    Goes on until there were enough kills and enough renders ended, or ten times as many kills: a machine that slows
    down after the render that was timed lets fewer of them end.
    """
    chance, found = random.Random(seed), {"kills": 0, "finished": 0, "marked": 0, "wrong": []}
    begun = time.monotonic()
    ended(start(folder / "timed"))
    seconds = time.monotonic() - begun
    while found["kills"] < kills or (found["finished"] < finished and found["kills"] < 10 * kills):
        here = folder / str(found["finished"])
        child = start(here, workers=chance.choice([1, 2]))
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        if ended(child):
            found["finished"] += 1
            found["wrong"] += [] if digest(here) == whole else ["ended otherwise"]
        else:
            found["kills"] += 1
            found["marked"] += outputs_in(here).store.exists()
            found["wrong"] += wrong(here, whole)
    ended(start(here, workers=2))
    found["wrong"] += [] if digest(here) == whole else ["ended otherwise"]
    return found


def killed_at_every_change(folder, whole):
    """Kill a render right before it first changes something on disk, the next one before its second change, ..."""
    found = {"kills": 0, "marked": 0, "wrong": []}
    for kill_at in itertools.count(1):
        if ended(start(folder, kill_at=kill_at)):
            break
        found["kills"] += 1
        found["marked"] += outputs_in(folder).store.exists()
        found["wrong"] += [f"change {kill_at}: {name}" for name in wrong(folder, whole)]
    found["wrong"] += [] if digest(folder) == whole else ["ended otherwise"]
    return {**found, "evaluated": evaluations(folder)}


def damaged(folder, whole):
    """Go on after a kill with one shard or its note damaged: what differs, and how many chunks that took."""
    cut = folder / "cut"
    ended(start(cut, kill_at=AMID))
    found = {"before": evaluations(cut)}

    def go_on(name, change):
        here = shutil.copytree(cut, folder / name)
        change(here)
        ended(start(here))
        found[name] = {"same": digest(here) == whole, "evaluated": evaluations(here)}

    (notes,) = (cut / "a.ome.zarr" / ".rendering").glob("shards-*")
    keys = [json.loads(line)["key"] for line in notes.read_text().split("\n") if line]
    store = Path("a.ome.zarr")
    go_on("nothing", lambda here: None)
    for name, damage in DAMAGES.items():
        go_on(name, lambda here, damage=damage: rewrite(here / store / keys[0], damage))
    go_on("gone", lambda here: (here / store / keys[0]).unlink())
    averaged = next(key for key in keys if key[0] == "1")
    go_on("mean", lambda here: rewrite(here / store / averaged, DAMAGES["a flipped bit"]))
    go_on("torn note", lambda here: rewrite(here / notes.relative_to(cut), lambda content: content[:-9]))
    go_on("garbled notes", lambda here: rewrite(here / notes.relative_to(cut), lambda content: b"\xff{}\n" + content))
    return found


def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


def changed(folder):
    """Go on after a kill with another field, grid, ...: whether it ends as if nothing had been there."""
    found = {}
    ended(start(folder / "cut", kill_at=AMID))
    for name, change in CHANGES.items():
        alone, after = folder / f"{name} alone", folder / name
        ended(start(alone, **change))
        ended(start(shutil.copytree(folder / "cut", after), **change))
        found[name] = {"same": digest(alone) == digest(after), "kept": evaluations(alone) - evaluations(after)}
    return found


def main():
    """Kill renders in the folder named, and print what was found."""
    folder = Path(sys.argv[1])
    ended(start(folder / "whole"))
    whole = digest(folder / "whole")
    found = {
        "chunks": evaluations(folder / "whole"),
        "random": killed_at_random_moments(folder / "random", whole, kills=50, finished=3, seed=0),
        "every": killed_at_every_change(folder / "every", whole),
        "damaged": damaged(folder / "damaged", whole),
        "changed": changed(folder / "changed"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
