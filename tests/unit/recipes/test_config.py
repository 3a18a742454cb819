"""What to run today: every key is checked, by every command, and the file that is wrong is the one that is named."""

from dataclasses import fields
from pathlib import Path

import pytest

from headsr.cli import USAGE, main
from headsr.recipes import RecipeError, config_files, load_config, load_recipes, merged
from headsr.recipes.config import Config, Files, Larger, Overrides, Render
from headsr.recipes.reference import _meaning

CONFIG = Path(__file__).parents[3] / "config/config.yaml"


@pytest.fixture()
def delta(tmp_path):
    def write(text):
        path = tmp_path / "delta.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_shipped_configurations_are_taken_as_they_are(delta):
    for deltas in ([], ["config/demo.yaml"], ["tests/config/smoke/config.yaml"]):
        load_recipes(load_config(deltas), config_files(deltas))
    sizes = (
        "{huge: {shape: [512], dtype: uint16, runtime_min: 9}, tall: {voxel_mm: [1, 1, 0.5]}, twice: {scale: [2.0]}}"
    )
    larger = load_config([delta(f"render: {{larger: {sizes}}}")])["render"]["larger"]
    assert larger["huge"]["shape"] == [512]


WRONG = [
    ("[]", r"must be a block of keys, not \[\]"),
    ("- results", "must be a block of keys, not"),
    ("3", "must be a block of keys, not 3"),
    ("resultz: x", "unknown key 'resultz'; did you mean 'results'"),
    ("results: ''", "results: '' is not a path"),
    ("recipes:", "recipes: must be a block of keys, not None"),
    ("recipes: {tables: []}", r"recipes\.tables: \[\] is not str"),
    ("voxel_mm: 0", r"voxel_mm: 0 is out of range; it must be above 0"),
    ("fetches_at_once: 0.5", r"fetches_at_once: 0\.5 is not int"),
    ("fetches_at_once: 99999999999999999999", "fetches_at_once: is too large a number"),
    ("template_voxel_mm: .inf", "template_voxel_mm: inf is out of range"),
    ("template_voxel_mm: .nan", "template_voxel_mm: nan is out of range"),
    ("tables: three", "tables: 'three' is not a list"),
    ("render: {chunk: 4}", r"render\.chunk: 4 is out of range; it must be at least 8"),
    ("render: {scheduler: pbs}", r"render\.scheduler: unknown scheduler 'pbs'"),
    ("render: {larger: {hi: {scale: [2]}}}", r"render\.larger: 'hi' is not a label of letters and digits, and not hi"),
    ("render: {larger: {x: {}}}", r"render\.larger\.x: give one of shape, voxel_mm and scale, not none"),
    ("render: {larger: {x: {shape: [9], scale: [2]}}}", "give one of shape, voxel_mm and scale, not shape and scale"),
    ("render: {larger: {x: {shape: [9, 9]}}}", "shape: needs one number, or three, not 2"),
    ("overrides: {model: {}}", r"overrides: unknown key 'model'; did you mean 'models'"),
    ("overrides: {models: []}", r"overrides\.models: \[\] is not a block of keys"),
    ("overrides: {models: {edsr: {seed: 2026-01-01}}}", r"overrides\.models\.edsr\.seed: .* is no text to YAML"),
    ("overrides: {models: {1: {}}}", r"overrides\.models: 1 is no text to YAML"),
    ('results: "\\ud800"', "half a character"),
    ("a: " + "[" * 60 + "]" * 60, "too deep in one another"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_a_wrong_key_is_refused_by_the_file_that_has_it(delta, text, message):
    path = delta(text)
    with pytest.raises(RecipeError, match=message) as refused:
        load_config(["config/demo.yaml", path])
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overrides: {methods: {inr: {fitt: 1}}}", "unknown key 'fitt'"),
        ("overrides: {methods: {inr: {kind: []}}}", r"inr\.kind: unknown kind \[\]"),
        ("overrides: {methods: {inr: 3}}", "inr: must be a block of keys, not 3"),
        ("overrides: {tables: {one_thick: {methods: [inrr]}}}", "unknown method 'inrr'"),
        ("overrides: {datasets: {'a b': {}}}", "'a b' is no name"),
        ("recipes: {methods: nowhere.yaml}", r"nowhere\.yaml: does not exist; config/config\.yaml, .*names it under"),
        ("tables: [one_thik]", "tables: unknown table 'one_thik'; did you mean 'one_thick'"),
        ("results: ' '", "results"),
    ],
)
def test_a_mistake_in_a_delta_names_the_delta(delta, text, message):
    path = delta(text)
    with pytest.raises(RecipeError, match=message) as refused:
        load_recipes(load_config([path]), config_files([path]))
    assert path in str(refused.value)


def test_overrides_of_the_configuration_itself_are_named_too(tmp_path, monkeypatch):
    (tmp_path / "config").mkdir()
    for source in [path for path in CONFIG.parent.rglob("*") if path.is_file()]:
        target = tmp_path / "config" / source.relative_to(CONFIG.parent)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    text = CONFIG.read_text().replace("overrides: {}", "overrides: {methods: {inr: {fitt: 1}}}")
    (tmp_path / "config/config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RecipeError, match=r"^config/config\.yaml, laid over config/methods\.yaml: inr: unknown key 'fitt'"
    ):
        load_recipes(load_config([]), config_files([]))


@pytest.mark.parametrize("command", [["pin"], ["verify"], ["mlflow"]])
def test_every_command_that_reads_the_configuration_refuses_a_wrong_one(delta, capsys, command):
    path = delta("fetches_at_once: many")
    assert main([*command, "--configfile", path]) == USAGE
    assert f"headsr: {path}: config.fetches_at_once: 'many' is not int" in capsys.readouterr().err


def test_latin_1_is_named(tmp_path):
    path = tmp_path / "delta.yaml"
    path.write_bytes("results: größe".encode("latin-1"))
    with pytest.raises(RecipeError, match=rf"^{path}: is not valid YAML"):
        load_config([str(path)])


def test_every_key_is_described():
    classes = [Config, Render, Larger, Files, Overrides]
    said = {f"{one.__name__}.{field.name}": _meaning(one, field) for one in classes for field in fields(one)}
    assert len(said) == 34 and [name for name, words in said.items() if not words] == []


@pytest.mark.parametrize("changed", [{"results": "x" * 5000}, {"recipes": {"methods": "y" * 5000}}])
def test_a_path_longer_than_a_file_system_takes_is_refused_in_words(changed):
    with pytest.raises(RecipeError, match="is no path"):
        load_recipes(merged(load_config([]), changed))
