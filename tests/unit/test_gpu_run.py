"""Packing and running for a lent graphics card (benchmarks/gpu), on a machine without one."""

import argparse
import json
import os
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from stored_balls import store_balls

from headsr.files import write_json
from headsr.history import read_history
from headsr.models.ship import Facts, ship
from headsr.volumes import Grid
from headsr.weights import load_model

GPU = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of benchmarks/gpu as modules; the names are theirs only here."""
    names = ("measured", "pack", "run", "training", "inference", "cube", "render")
    monkeypatch.syspath_prepend(GPU)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def summary(scripts, tmp_path):
    return scripts("run").Summary(tmp_path / "out")


def outcomes(summary):
    return {one["name"]: one for one in json.loads((summary.out / "summary.json").read_text())["parts"]}


def wheels_of(*modules):
    """In place of a download: a wheel of each module, with a test inside."""

    def fetch(names, version, folder):
        for module in modules:
            with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
                wheel.writestr(f"{module}/__init__.py", "VALUE = 7\n")
                wheel.writestr(f"{module}/tests/test_it.py", "raise RuntimeError\n")
                wheel.writestr(f"{module}-1.0.dist-info/METADATA", f"Name: {module}\n")

    return fetch


def test_only_modules_that_are_lacking_are_unpacked(scripts, tmp_path):
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    packed = tmp_path / "pack"
    scripts("pack").pack_wheels([], version, packed / "wheels" / version, wheels_of("nowhere_else", "numpy"))
    site, unpacked = scripts("run").unpack_wheels(packed, tmp_path / "site")
    assert unpacked == ["nowhere_else"]
    assert sorted(path.name for path in site.iterdir()) == ["nowhere_else", "nowhere_else-1.0.dist-info"]
    assert [path.name for path in (site / "nowhere_else").iterdir()] == ["__init__.py"]


def test_another_python_is_said_to_be_one(scripts, tmp_path):
    scripts("pack").pack_wheels([], "3.7", tmp_path / "pack" / "wheels" / "3.7", wheels_of("nowhere_else"))
    _, unpacked = scripts("run").unpack_wheels(tmp_path / "pack", tmp_path / "site")
    assert "packed for: 3.7" in unpacked[0]


def test_anatomies_arrive_as_they_were(scripts, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_file({"winners": torch.full((8, 8, 8), len(name), dtype=torch.uint8)}, tmp_path / name / "a.safetensors")
    stores = [{"name": f"set/{name}", "split": "train", "anatomy": f"{name}/a.safetensors"} for name in ("one", "two")]
    write_json(tmp_path / "training.json", {"stores": stores})
    scripts("pack").pack_anatomies(tmp_path / "training.json", tmp_path / "pack" / "anatomies")
    index = scripts("run").unpack_anatomies(tmp_path / "pack", tmp_path / "there")
    arrived = json.loads(index.read_text())["stores"]
    assert [entry["name"] for entry in arrived] == ["set/one", "set/two"]
    for entry, stored in zip(arrived, stores, strict=True):
        assert (index.parent / entry["anatomy"]).read_bytes() == (tmp_path / stored["anatomy"]).read_bytes()


def test_what_travels_is_weighed_and_bounded(scripts, tmp_path, capsys):
    pack = scripts("pack")
    pack.pack_wheels([], "3.12", tmp_path / "wheels" / "3.12", wheels_of("nowhere_else"))
    (tmp_path / "anatomies").mkdir()
    weights = pack.weights_of(tmp_path)
    assert set(weights) == {"anatomies", "wheels/3.12", "working tree"}
    assert weights["wheels/3.12"] > 0 and weights["working tree"] > 10**6
    assert pack.fits(weights)
    assert not pack.fits({**weights, "anatomies": pack.LIMIT})
    assert "MiB" in capsys.readouterr().out


def python(code):
    return (sys.executable, "-c", code)


def test_a_part_that_fails_or_hangs_stops_no_other(scripts, summary, monkeypatch):
    run = scripts("run")
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.1)
    said = "import json, time; print(json.dumps({'number': 'n', 'value': 3, 'unit': 'GB'}), flush=True)"
    parts = [
        run.Part("fails", python("print('so it goes'); raise SystemExit(3)"), 60),
        run.Part("absent", (str(GPU / "no such program"),), 60),
        run.Part("hangs", python(f"{said}; time.sleep(600)"), 1.5),
        run.Part("works", python(said), 60),
    ]
    run.run_parts(parts, summary, deadline=time.monotonic() + 120)
    found = outcomes(summary)
    states = {name: one["state"] for name, one in found.items()}
    assert states == {"fails": "failed", "absent": "failed", "hangs": "out of time", "works": "done"}
    assert found["fails"]["last_lines"] == ["so it goes"]
    assert found["hangs"]["seconds"] < 60
    assert found["works"]["numbers"] == {"n": [3, "GB"]}
    assert "| n | 3 GB |" in (summary.out / "summary.md").read_text()


def test_the_children_of_a_part_are_killed_with_it(scripts, summary, tmp_path, monkeypatch):
    run, pid = scripts("run"), tmp_path / "pid"
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.1)
    starts = (
        "import subprocess, sys, pathlib; child = subprocess.Popen([sys.executable, '-c', 'import time; "
        f"time.sleep(600)']); pathlib.Path({str(pid)!r}).write_text(str(child.pid)); child.wait()"
    )
    run.run_parts([run.Part("hangs", python(starts), 4)], summary, deadline=time.monotonic() + 60)
    child = int(pid.read_text())
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {child} lives on")


def alive(pid):
    """Whether a process runs; one that ended and whom nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_packed_is_there_for_every_part(scripts, tmp_path, monkeypatch, capsys):
    run, pack, version = scripts("run"), scripts("pack"), f"{sys.version_info[0]}.{sys.version_info[1]}"
    pack.pack_wheels([], version, tmp_path / "pack" / "wheels" / version, wheels_of("nowhere_else"))
    write_json(tmp_path / "training.json", {"stores": []})
    pack.pack_anatomies(tmp_path / "training.json", tmp_path / "pack" / "anatomies")
    uses = run.Part("uses", python("import nowhere_else, headsr; print(nowhere_else.VALUE)"), 60)
    monkeypatch.setattr(run, "parts_of", lambda arguments, index: [uses] if index.exists() else [])
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "pack"), str(tmp_path / "out")])
    run.main()
    printed = capsys.readouterr().out
    assert "from the pack: nowhere_else" in printed and "## uses: done" in printed and "\n7\n" in printed


def test_later_parts_keep_their_time(scripts, summary):
    """100 s in all: the first part is bounded by what it leaves, and what finds too little is not begun."""
    run, now, allowed = scripts("run"), [0.0], {}

    def spend(part, seconds, hear, environment):
        allowed[part.name] = seconds
        now[0] += min(seconds, 70)
        return "done"

    run.run_part = spend
    parts = [run.Part("one", (), 80, leaves=40), run.Part("two", (), 80, leaves=30), run.Part("three", (), 90)]
    run.run_parts(parts, summary, deadline=100.0, clock=lambda: now[0])
    assert allowed == {"one": 60.0, "two": 10.0, "three": 30.0}
    summary.outcomes.clear()
    run.run_parts(parts, summary, deadline=100.0, clock=lambda: now[0])
    assert {one["state"] for one in outcomes(summary).values()} == {"not begun"}


def test_numbers_are_told_from_other_lines(scripts, capsys):
    measured = scripts("measured")
    measured.say("rate", 2.5, "voxels/s")
    line = capsys.readouterr().out.rstrip()
    assert measured.number_in(line) == {"number": "rate", "value": 2.5, "unit": "voxels/s"}
    assert measured.number_in("rate 2.5") is None and measured.number_in('{"number": cut off') is None


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return store_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture
def small_recipe(scripts, tmp_path):
    """The recipe of the model that ships, with a network and blocks of the smallest size."""
    recipe = yaml.safe_load(scripts("training").RECIPE.read_text())
    recipe["network"] |= {"stages": 1, "widths": [4, 4], "blocks": [1, 1, 1], "solves": 1}
    recipe["data"] |= {"block": [16, 16, 16], "tilt_degrees": 0}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_training_keeps_its_time_and_brings_weights_that_load(scripts, balls, small_recipe, tmp_path, monkeypatch):
    training = scripts("training")
    monkeypatch.setattr(training, "BATCHES", (1, 2))
    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.05)
    monkeypatch.setattr(sys, "argv", ["training.py", str(balls), str(tmp_path), "--recipe", str(small_recipe)])
    # Before its first step it measures 200 studies.
    sys.argv += ["--seconds", "8", "--finish-seconds", "0.5"]
    training.main()
    kept = tmp_path / "unrolled"
    assert load_model(kept / "weights.safetensors").kind == "unrolled"
    history = read_history(kept / "history.jsonl")
    assert [history[0]["step"], "val_psnr" in history[0], "val_psnr" in history[-1]] == [0, True, True]
    assert history[-1]["step"] >= 2
    facts = Facts(
        trained_on="balls", datasets=(), device="cpu", minutes=0.1, machine="", license="CC0", citation="none"
    )
    assert ship(kept, facts, name="unrolled", datasets={}, folder=tmp_path).steps == history[-1]["step"]


def test_a_training_begins_from_weights(scripts, balls, small_recipe, tmp_path):
    training, cpu = scripts("training"), torch.device("cpu")
    recipe = training.read_recipe(small_recipe)
    first = training.Training.of(recipe, balls, cpu, tmp_path / "one" / "unrolled", None)
    with torch.no_grad():
        next(first.networks["network"].parameters()).fill_(0.25)
    first._stretch(1, decays=False)
    for begin in (first.folder / "weights.safetensors", first.previous):
        again = training.Training.of(recipe, balls, cpu, tmp_path / "two", begin)
        assert next(again.networks["network"].parameters()).mean().item() == pytest.approx(0.25, abs=0.01)


def test_batches_drawn_ahead_are_those_asked_for(scripts):
    drawn = []

    class Steps:
        def batch(self, step, size=None):
            drawn.append(step)
            return 10 * step

    with scripts("training").Ahead(Steps()) as ahead:
        assert [ahead.batch(step) for step in (1, 2, 3, 7, 4)] == [10, 20, 30, 70, 40]
    assert set(drawn) >= {1, 2, 3, 4, 7}


def test_inference_is_measured_whole_and_in_tiles(scripts, balls, monkeypatch, capsys):
    inference = scripts("inference")
    monkeypatch.setattr(inference, "AT_ONCE", (None, 4000))
    monkeypatch.setattr(sys, "argv", ["inference.py", str(balls), os.devnull + "/none", "--shape", "24", "24", "20"])
    inference.main()
    printed = capsys.readouterr().out
    assert "(24, 24, 20) voxels, whole" in printed and "PSNR, 4000 voxels at once" in printed


def test_a_cube_is_rendered_and_measured(scripts, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cube.py", "--device", "cpu", "--sides", "24"])
    cube, network = scripts("cube"), scripts("render").random_hash_grid(levels=2, table=64)
    small = replace(network, grid=Grid((12, 12, 12), np.eye(4)), cells=(6.0, 3.0))
    small = replace(small, levels=tuple(np.ones((2, n, n, n), np.float32) for n in (2, 4)))
    monkeypatch.setattr(cube.fields, "random_hash_grid", lambda: small)
    cube.main()
    assert '"hash grid at 24 a side, rate"' in capsys.readouterr().out


def test_every_part_is_a_script_that_is_there(scripts, tmp_path):
    run = scripts("run")
    asked = argparse.Namespace(out=tmp_path, training_seconds=240.0, batch=4, begin=tmp_path / "begun.safetensors")
    parts = {part.name: part for part in run.parts_of(asked, tmp_path / "index.json")}
    assert list(parts) == ["card", "tests", "training", "inference", "rates", "cube"]
    assert all(Path(part.command[1]).is_file() for name, part in parts.items() if name != "tests")
    assert Path(parts["tests"].command[-1]).is_dir()
    assert parts["training"].command[-4:] == ("--batch", "4", "--begin", str(asked.begin))
    assert parts["training"].seconds > asked.training_seconds
