"""Pack what a lent card's machine has not: anatomies to train on, and wheels. It has no package index there.

Run: python benchmarks/gpu/pack.py FOLDER --index INDEX [--python 3.12 ...] [--without scipy ...]

INDEX is the list of anatomies that a model is trained on, results/models/unrolled/training.json. For each version of
Python a folder of wheels, those of constraints.txt. They are unpacked there only where the machine has no such module,
so what it is known to have can stay away. All is recompressed by xz; tests inside wheels are left out.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headsr.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    # what headsr imports in these parts, but for torch and NumPy
    "nibabel", "scipy", "zarr", "numcodecs", "google-crc32c", "pyyaml", "safetensors", "psutil", "threadpoolctl",
    # what these need
    "donfig", "packaging", "typing-extensions", "importlib-resources",
    # the tests
    "pytest", "pluggy", "iniconfig", "pygments", "hypothesis", "sortedcontainers",
)  # fmt: skip
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
LIMIT = 64 * 2**20  # of what travels: this and the working tree
ANATOMIES_PRESET, WHEELS_PRESET = 2, 6  # more costs minutes and saves a tenth

Fetch = Callable[[Sequence[str], str, Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--python", nargs="+", default=["3.12"])
    parser.add_argument("--without", nargs="*", default=[], choices=MODULES)
    arguments = parser.parse_args()
    pack_anatomies(arguments.index, arguments.folder / "anatomies")
    modules = [one for one in MODULES if one not in arguments.without]
    for version in arguments.python:
        pack_wheels(modules, version, arguments.folder / "wheels" / version)
    if not fits(weights_of(arguments.folder)):
        sys.exit(f"more than {LIMIT / 2**20:.0f} MiB: leave out what the machine has (--without scipy), or a Python")


def pack_anatomies(index: Path, folder: Path) -> None:
    """Compress every anatomy of an index, and write an index of these, which lie beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, entry in enumerate(read_json(index)["stores"]):
        name = f"{number:02d}_{entry['name'].replace('/', '_')}.safetensors"
        content = (index.parent / entry["anatomy"]).read_bytes()
        (folder / f"{name}.xz").write_bytes(lzma.compress(content, preset=ANATOMIES_PRESET))
        entries.append({**entry, "anatomy": name})
    write_json(folder / "index.json", {"stores": entries})


def fetch(modules: Sequence[str], version: str, folder: Path) -> None:
    """Download wheels of a Python by pip, in the versions of constraints.txt."""
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", version, *platforms, "--dest", str(folder)]
    subprocess.run([*command, "--constraint", str(ROOT / "constraints.txt"), *modules], check=True)


def pack_wheels(modules: Sequence[str], version: str, folder: Path, fetch: Fetch = fetch) -> None:
    """Put the wheels of some modules into ``folder``, as X.whl.xz."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as fetched:
        fetch(modules, version, Path(fetched))
        for path in sorted(Path(fetched).glob("*.whl")):
            squeezed = lzma.compress(stored(path), preset=WHEELS_PRESET)
            (folder / f"{path.name}.xz").write_bytes(squeezed)


def stored(path: Path) -> bytes:
    """A wheel whose files are not compressed, which xz then does better, and none of them a test."""
    bare = io.BytesIO()
    with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(bare, "w", zipfile.ZIP_STORED) as target:
        for entry in wheel.infolist():
            if "/tests/" not in entry.filename:
                target.writestr(entry.filename, wheel.read(entry))
    return bare.getvalue()


def weights_of(folder: Path) -> dict[str, int]:
    """The bytes of what travels, by what it is: the parts of the pack, and the working tree."""
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    tree = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {ROOT / name for name in tree if name and (ROOT / name).is_file()} - set(folder.resolve().rglob("*"))
    found = {str(part.relative_to(folder)): sum(_sizes(part)) for part in _parts(folder)}
    return {**found, "working tree": sum(path.stat().st_size for path in files)}


def _parts(folder: Path) -> Iterator[Path]:
    yield folder / "anatomies"
    yield from sorted((folder / "wheels").glob("*"))


def _sizes(folder: Path) -> Iterator[int]:
    return (path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fits(weights: dict[str, int]) -> bool:
    """Whether all of it may travel; prints what each part of it weighs."""
    for name, size in weights.items():
        print(f"{name}: {size / 2**20:.1f} MiB")
    total = sum(weights.values())
    print(f"in all {total / 2**20:.1f} of {LIMIT / 2**20:.0f} MiB")
    return total <= LIMIT


if __name__ == "__main__":
    main()
