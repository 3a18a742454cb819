"""Configuration, deltas, recipes and facts: YAML whose text or tree is damaged."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from fuzz.damage import damaged_text, damaged_tree, pick
from fuzz.outcomes import Input
from fuzz.run import Maker
from numpy.random import Generator

from headsr.models.ship import read_facts
from headsr.recipes import config_files, load_config, load_recipes

CONFIG = Path(__file__).parents[2] / "config"
# Of the shipped recipes: a project that is read in milliseconds.
KEPT = {
    "datasets": (),
    "degradations": ("orthogonal_x4", "axial_x4", "through_plane_x4", "rows_x{factor}_{profile}"),
    "blind": (),
    "methods": (),
    "experiments": ("three_orthogonal", "one_thick_detail"),
}
DELTA = """
results: results/other
voxel_mm: 2.0
render: {chunk: 32, shard: 64, larger: {huge: {shape: [512], dtype: uint16}}}
tables: [three_orthogonal]
overrides:
  datasets:
    other: {url: elsewhere, version: v1, license: CC0, citation: Somebody}
  degradations:
    more: {kind: simulated, stacks: [{view: axial, factor: 4}], noise_percent: 1.0}
  methods:
    tikhonov: {iterations: 20}
  models:
    edsr: {budget: {steps: 10}, losses: {l1: 1.0}}
"""


def prepare(folder: Path) -> Maker:
    """A small project with one delta, each file of it by its text and its tree."""
    texts = _project(folder)
    trees = {name: yaml.safe_load(text) for name, text in texts.items()}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _load(folder), read_facts(folder / "facts.yaml")

    def make(rng: Generator) -> Input:
        name = pick(rng, [*texts, "delta.yaml", "delta.yaml", "config/config.yaml"])
        path = folder / name
        path.write_bytes(_damaged(texts[name], trees[name], rng))

        def read() -> Any:
            try:
                return read_facts(path) if name == "facts.yaml" else _load(folder)
            finally:
                path.write_text(texts[name], encoding="utf-8")

        return Input(read, _to_blame(name, texts))

    return make


def _project(folder: Path) -> dict[str, str]:
    """The text of every file by its path in the project."""
    texts = {"config/config.yaml": (CONFIG / "config.yaml").read_text()}
    texts["config/config.yaml"] = texts["config/config.yaml"].replace("one_thick", "one_thick_detail")
    for name, kept in KEPT.items():
        blocks = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
        texts[f"config/{name}.yaml"] = yaml.safe_dump({one: blocks[one] for one in kept or blocks}, sort_keys=False)
    for path in sorted((CONFIG / "models").glob("*.yaml")):
        texts[f"config/models/{path.name}"] = path.read_text()
    texts |= {"delta.yaml": DELTA, "facts.yaml": (CONFIG / "shipped/unrolled.yaml").read_text()}
    for name in texts:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return texts


def _damaged(text: str, tree: Any, rng: Generator) -> bytes:
    if rng.random() < 0.5:
        return damaged_text(text, rng)
    tree = damaged_tree(tree, rng)
    return yaml.safe_dump(tree, allow_unicode=bool(rng.random() < 0.5)).encode("utf-8", "surrogatepass")


def _to_blame(name: str, texts: dict[str, str]) -> list[str]:
    """A delta for its own mistakes alone. A name that went out of a recipe file may be missed by any other."""
    if name in ("delta.yaml", "facts.yaml"):
        return [name]
    return [name, *texts]


def _load(folder: Path) -> Any:
    with contextlib.chdir(folder):
        return load_recipes(load_config(["delta.yaml"]), config_files(["delta.yaml"]))
