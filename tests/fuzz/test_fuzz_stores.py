"""Stores as headsr writes them, damaged by chance: refused or shown as damaged, never as another volume.

``make test-long`` tries some hundred; HEADSR_FUZZ_CASES=10000 tries that many and prints the table of
docs/results/fuzzing.md. Every case follows from its number.
"""

import contextlib
import json
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faults import HARMLESS, cases, outcome_of, table, worst

from headsr.evaluate.check import _read_store
from headsr.render import store as stores
from headsr.render.field import Manner, render
from headsr.render.publish import Outputs
from headsr.view.levels import StoredVolume
from headsr.volumes import SCANNER, Grid

pytestmark = pytest.mark.long
SHARE = 300
SHAPE = (66, 17, 18)  # a pyramid of two levels, shards at both faces
NAME = "a.ome.zarr"


class Wave:
    """A field that is something everywhere, or within the middle of its box alone."""

    scale, offset, signed, arithmetic, record = 100.0, 0.0, True, "numpy", {"method": "wave"}
    forms = SCANNER

    def __init__(self, *, in_air: bool = False) -> None:
        affine = np.diag([0.5, 0.75, 1.0, 1.0])
        affine[:3, 3] = -10, 4, -7
        self.grid, self.in_air = Grid(SHAPE, affine), in_air

    def evaluate(self, grid: Grid) -> np.ndarray:
        inside = np.linalg.inv(self.grid.affine) @ grid.affine
        x, y, z = np.ogrid[tuple(slice(n) for n in grid.shape)]
        x, y, z = (one * inside[axis, axis] + inside[axis, 3] for axis, one in enumerate((x, y, z)))
        values = 2 + np.sin(x / 3) * np.cos(y / 2) + 0.1 * np.sin(z)
        return np.where((x > 20) & (x < 50) & (y > 3), values, 0 if self.in_air else values).astype(np.float32)

    @property
    def projected(self) -> np.ndarray:
        return self.evaluate(self.grid)

    def evaluation_bytes(self, grid: Grid) -> int:
        return 20 * int(np.prod(grid.shape))

    def seconds_per_voxel(self, grid: Grid) -> float:
        return 1e-8


KINDS = {
    "float32": (Wave(), Manner(chunk=16, shard=32)),
    "uint16, without air": (Wave(in_air=True), Manner(chunk=16, shard=32, dtype="uint16", skip_air=True)),
    "float16": (Wave(), Manner(chunk=9, shard=18, dtype="float16")),
}
ODD_NAMES = ("thesis.txt", ".git", "0/notes", "nifti/c/1", "0/c/9/9/9", "2/zarr.json", "a\x1b[31m", "\n", "caf\udce9")
ODD_VALUES = (None, True, -1, 0, 2**63, 10**400, 1e308, "", "a\x1b[2J", [], {}, [[]] * 3, "0" * 10_000)


class Store:
    """A finished store and all that reading it gives."""

    def __init__(self, root: Path, field: Wave, manner: Manner) -> None:
        outputs = Outputs(root / "zarr.json", root.with_name("a.nii.gz"), root.with_name("a.json"))
        render(field, outputs, identity="known", manner=manner)
        self.root, self.grid = root, field.grid
        self.files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
        self.fingerprint = stores.read_record(root / "zarr.json")["fingerprint"]
        self.content = content_of(root)
        self.view, self.voxels = seen(root), read(root, self.grid)


def content_of(root: Path) -> dict[str, object]:
    """Every path below a folder with its bytes; a link stands for what it leads to, if that is a file.

    The root says the same whatever the white space between its values.
    """
    paths = [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    found = {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b"no file" for path in paths}
    with contextlib.suppress(ValueError, RecursionError, KeyError):
        found["zarr.json"] = json.loads(found["zarr.json"])
    return found


def seen(root: Path) -> tuple[object, list[bytes]]:
    """What ``headsr view`` shows: what the page is told, and every level as a NIfTI."""
    volume = StoredVolume(root)
    whole = [volume.nifti(level, (0, 0, 0), grid.shape)[1] for level, grid in enumerate(volume.grids)]
    return volume.describe(), [b"".join(map(bytes, pieces)) for pieces in whole]


def read(root: Path, head: object) -> np.ndarray:
    return _read_store(root / "zarr.json", head)


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.choice((0, 1, len(content) - 1, chance.randrange(len(content))))])


def lengthen(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.choice((1, 4, 4096))))


def blank(path: Path, chance: random.Random) -> None:
    """A block of zeros, as a disk gives it back after a loss of power."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice((16, 512, len(content))))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(path.stat().st_size))


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def remove_folder(path: Path, chance: random.Random) -> None:
    shutil.rmtree(path.parent)


def link(path: Path, chance: random.Random) -> None:
    """A link in a file's place: to the same bytes, to another file, to nothing, to itself, to what never ends."""
    (elsewhere := OUTSIDE / "same").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(chance.choice((elsewhere, "zarr.json", "nowhere", path.name, "/dev/zero", "/dev/null", "/")))


def no_file(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path) if chance.random() < 0.5 else path.mkdir()


def other_shard(path: Path, chance: random.Random) -> None:
    """Another file of the store in its place."""
    others = [one for one in ROOT.rglob("*") if one.is_file() and one != path]
    shutil.copy(chance.choice(others), path)


def strange_file(path: Path, chance: random.Random) -> None:
    """Something beside the store's own files that headsr did not make."""
    odd = ROOT / chance.choice(ODD_NAMES)
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.write_bytes(chance.randbytes(9))


def json_value(path: Path, chance: random.Random) -> None:
    """One value anywhere in the metadata is another, of any type, or gone, or has another name."""
    content = json.loads(path.read_text())
    places = list(blocks_of(content))
    block = chance.choice(places)
    key = chance.choice(list(block) if isinstance(block, dict) else range(len(block)))
    how = chance.random()
    if how < 0.2:
        del block[key]
    elif how < 0.35 and isinstance(block, dict):
        block[f"{key}x"] = block.pop(key)
    elif how < 0.6 and isinstance(block[key], (int, float)):
        block[key] = block[key] * chance.choice((-1, 2, 10)) + chance.choice((0, 1))
    else:
        block[key] = chance.choice(ODD_VALUES)
    path.write_text(json.dumps(content))


def blocks_of(content: object) -> Iterator[dict | list]:
    """Every object and list of JSON that holds something."""
    if isinstance(content, (dict, list)) and content:
        yield content
        for inner in content.values() if isinstance(content, dict) else content:
            yield from blocks_of(inner)


def json_text(path: Path, chance: random.Random) -> None:
    """No JSON, or one that only readers without limits read."""
    text = path.read_text()
    path.write_bytes(
        chance.choice(
            (
                b"null",
                b"[]",
                b'"text"',
                b"[" * 100_000,
                text.encode("utf-16"),
                b"\xff" + text.encode(),
                text.replace("1", "1" * 5000, 1).encode(),
                text.replace("{", '{"attributes": {}, ', 1).encode(),
                text.replace("\n", "", chance.randrange(1, 9)).encode(),  # says the same
            )
        )
    )


ROOT, OUTSIDE = Path(), Path()  # of the case at hand
ANY, JSON = r".*", r".*\.json"
DAMAGES = {
    "bits flipped": (flip, ANY),
    "cut short": (cut, ANY),
    "lengthened": (lengthen, ANY),
    "a block of zeros": (blank, ANY),
    "other bytes, same size": (noise, ANY),
    "removed": (remove, ANY),
    "folder removed": (remove_folder, r".+/.*"),
    "a link instead": (link, ANY),
    "pipe or folder instead": (no_file, ANY),
    "another of its files instead": (other_shard, ANY),
    "a strange file beside": (strange_file, ANY),
    "a value of its metadata": (json_value, JSON),
    "text of its metadata": (json_text, JSON),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {kind: Store(folder / str(n) / NAME, *how) for n, (kind, how) in enumerate(KINDS.items())}


def outcome(case: int, made: dict[str, Store], folder: Path) -> tuple[str, str, str]:
    """The kind of damage of a case, the worst of what its readers come to, and what that one said."""
    global ROOT, OUTSIDE
    chance = random.Random(case)
    store = made[chance.choice(list(KINDS))]
    kind = chance.choice(list(DAMAGES))
    damage, names = DAMAGES[kind]
    ROOT, OUTSIDE = folder / NAME, folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.root, ROOT)
    name = chance.choice([name for name in store.files if re.fullmatch(names, name)])
    damage(ROOT / name, chance)
    is_whole = content_of(ROOT) == store.content if "/dev/zero" not in links_of(ROOT) else False
    mark = ROOT / "zarr.json"
    outcomes = [
        outcome_of(lambda: seen(ROOT), is_right=lambda found: found == store.view, named=NAME),
        outcome_of(
            lambda: read(ROOT, store.grid), is_right=lambda found: np.array_equal(found, store.voxels), named=NAME
        ),
        outcome_of(
            lambda: stores.is_finished(mark, store.fingerprint),
            is_right=lambda found: is_whole or not found,
            named=NAME,
        ),
    ]
    reached, said = worst(outcomes)
    return kind, reached, f"case {case}, {name}: {outcomes.index((reached, said))}: {said}"


def links_of(root: Path) -> set[str]:
    return {os.readlink(path) for path in root.rglob("*") if path.is_symlink()}


def test_a_damaged_store_is_never_taken_for_a_whole_one(made, tmp_path):
    counts, faults = defaultdict(Counter), []
    for case in cases(SHARE):
        kind, reached, said = outcome(case, made, tmp_path / "case")
        counts[kind][reached] += 1
        if reached not in HARMLESS:
            faults.append(f"{kind}: {reached}: {said[:400]}")
    print(table(counts))
    assert not faults, "\n".join(faults[:40])
