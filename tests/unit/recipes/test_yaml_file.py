"""A small YAML file stays small, whatever its aliases stand for."""

from pathlib import Path

import pytest
import yaml

from headsr.files import NotAFileError
from headsr.recipes import RecipeError, load_config
from headsr.recipes import yaml_file as reading
from headsr.recipes.convert import expanded
from headsr.recipes.load import load_recipes
from headsr.recipes.yaml_file import read_yaml

CONFIG = Path(__file__).parents[3] / "config/config.yaml"


def laughs(levels=9):
    """Each level is ten of the one before: a thousand million in 500 bytes."""
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(rows)


def merges(levels=9):
    rows = ["a0: &a0 {x: 1}"]
    rows += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join(rows)


BOMBS = {
    "laughs": (laughs(), "stands for more than 200,000 values"),
    "merges": (merges(), "stands for more than 200,000 values"),
    "itself": ("a: &a [*a]", "a block contains itself"),
    "itself, merged": ("a: &a {<<: *a}", "a block contains itself|found undefined alias"),
    "key": ("a: {[b]: 1}", "a key is a list or a block, and must be a text, in line 1"),
    "deep": ("[" * 100_000, "too deep in one another"),
    "digits": ("a: " + "9" * 5000, "digits"),
    "no day": ("a: 2026-13-45", "month must be in"),
    "Latin-1": (b"a: m\xfcller", "can't decode|invalid"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_stands_for_too_much_is_refused_with_the_files_name(tmp_path, monkeypatch, bomb):
    content, message = BOMBS[bomb]
    path = tmp_path / "delta.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(yaml.YAMLError, match=message):
        read_yaml(path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(CONFIG.read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^delta\.yaml: is not valid YAML"):
        load_config(["delta.yaml"])
    parts = ("datasets", "degradations", "blind", "methods", "models", "tables")
    config = {"recipes": dict.fromkeys(parts, "delta.yaml"), "results": "results", "clones": "clones"}
    with pytest.raises(RecipeError, match=r"^delta\.yaml: is not valid YAML"):
        load_recipes(config)


def test_aliases_and_merges_are_read_as_they_are_meant(tmp_path):
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml") == yaml.safe_load(text)
    (tmp_path / "a.yaml").write_text("# nothing")
    assert read_yaml(tmp_path / "a.yaml") is None


def test_a_file_too_large_for_a_recipe_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 100)
    (tmp_path / "a.yaml").write_text("a: " + "x" * 98)
    with pytest.raises(yaml.YAMLError, match="more than 100 bytes"):
        read_yaml(tmp_path / "a.yaml")


def test_what_is_no_file_is_refused_at_once(endless):
    path = endless("a.yaml")
    with pytest.raises(NotAFileError, match=r"a\.yaml: is a pipe or a device"):
        read_yaml(path)


def test_an_each_of_millions_is_not_written_out():
    digits = list(range(10))
    block = {"each": {f"k{n}": digits for n in range(7)}, "kind": "x"}
    with pytest.raises(RecipeError, match=r"recipes\.yaml: x_\{k0\}\.each: makes more than 10,000 blocks"):
        expanded({"x_{k0}": block}, "recipes.yaml")
