"""``headsr models``: what it says, and exit codes that are true."""

import json

import pytest
import yaml
from tiny_weights import finished_training, shipped

from headsr.cli import main
from headsr.files import sha256_of

FACTS = {
    "trained_on": "three heads",
    "datasets": ["ds000113"],
    "device": "CPU",
    "minutes": 1,
    "machine": "two cores",
    "license": "CC0",
    "citation": "headsr",
}


def test_list_has_a_line_a_model(tmp_path, capsys):
    assert main(["models", "list", "--folder", str(tmp_path)]) == 0
    assert "no weights ship here" in capsys.readouterr().out
    shipped(tmp_path)
    shipped(tmp_path, "again", seed=1)
    assert main(["models", "list", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "again", "tiny"]
    assert "label maps of 20 people" in lines[2] and "PSNR 31.25 dB" in lines[2]


def test_list_of_a_broken_pair_is_a_usage_error(tmp_path, capsys):
    shipped(tmp_path)
    (tmp_path / "tiny.json").unlink()
    assert main(["models", "list", "--folder", str(tmp_path)]) == 2
    assert "tiny.safetensors: the card beside it, tiny.json, is missing" in capsys.readouterr().err


def test_verify_names_what_is_good_and_what_is_not(tmp_path, capsys):
    assert main(["models", "verify", "--folder", str(tmp_path)]) == 0
    shipped(tmp_path)
    assert main(["models", "verify", "--folder", str(tmp_path)]) == 0
    assert "OK tiny: " in capsys.readouterr().out
    shipped(tmp_path, "half")
    (tmp_path / "half.safetensors").unlink()
    assert main(["models", "verify", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "OK tiny: " in said and "FAILED half: " in said and "half.json: the weights beside it" in said
    assert main(["models", "verify", "tiny", "--folder", str(tmp_path)]) == 0
    assert main(["models", "verify", "tyny", "--folder", str(tmp_path)]) == 1
    assert "FAILED tyny: " in (said := capsys.readouterr().out) and "did you mean 'tiny'" in said


def test_ship_makes_a_pair_that_verifies(tmp_path, capsys):
    model, facts, folder = finished_training(tmp_path / "edsr"), tmp_path / "facts.yaml", tmp_path / "out"
    facts.write_text(yaml.safe_dump(FACTS))
    assert main(["models", "ship", str(model), str(facts), "--folder", str(folder)]) == 0
    assert "edsr  baseline  three heads" in capsys.readouterr().out
    card = json.loads((folder / "edsr.json").read_text())
    assert card["sha256"] == sha256_of(model / "weights.safetensors") == sha256_of(folder / "edsr.safetensors")
    assert card["datasets"]["ds000113"]["license"] == "PDDL"
    assert main(["models", "ship", str(model), str(facts), "--name", "small", "--folder", str(folder)]) == 0
    assert main(["models", "verify", "--folder", str(folder)]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ["ds00113"]}, "did you mean 'ds000113'"),
        ({"minutes": 0}, "facts.minutes: 0 is out of range"),
        ({"licence": "x"}, "did you mean 'license'"),
    ],
)
def test_wrong_facts_are_a_usage_error(tmp_path, capsys, change, message):
    model, facts = finished_training(tmp_path / "edsr"), tmp_path / "facts.yaml"
    facts.write_text(yaml.safe_dump({**FACTS, **change}))
    assert main(["models", "ship", str(model), str(facts), "--folder", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
