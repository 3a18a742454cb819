"""Several processes that train as one."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import distributed

from headsr.training import loop
from headsr.training.team import TeamError, run_as_team, team_size
from headsr.weights import load_tensors


@pytest.fixture
def shared_out(recipe_of):
    """A training whose steps have four batches, of a baseline or of one with a discriminator."""

    def make(kind):
        optimizer = {"learning_rate": 0.01, "accumulation": 4}
        # Both adversarial losses: the last bias of what learns from the relativistic one alone follows rounding.
        losses = {} if kind == "baseline" else {"relativistic": 0.1, "vanilla": 0.1}
        recipe = recipe_of(kind, steps=10, optimizer=optimizer, precision="fp32", losses=losses)
        judge = {"architecture": "unet_discriminator", "channels": 4}
        return recipe if kind == "baseline" else replace(recipe, discriminator=judge)

    return make


def test_as_many_processes_train_as_divide_the_batches_of_a_step():
    sizes = {(batches, asked): team_size(batches, asked) for batches, asked in [(1, 4), (4, 3), (4, 4), (6, 4), (3, 0)]}
    assert sizes == {(1, 4): 1, (4, 3): 2, (4, 4): 4, (6, 4): 3, (3, 0): 1}


@pytest.mark.parametrize("kind", ["baseline", "adversarial"])
def test_two_processes_train_what_one_does(shared_out, train, capfd, kind):
    one, two = train(shared_out(kind), "one"), train(shared_out(kind), "two", processes=3)
    said = capfd.readouterr().out
    assert "in 2 of 3 processes, since optimizer.accumulation is 4" in said
    assert said.count("10 steps on cpu in 2 processes") == 1, "the first alone speaks"
    (tensors, metadata), (as_well, other) = load_tensors(one), load_tensors(two)
    for name, tensor in tensors.items():
        assert torch.allclose(as_well[name], tensor, rtol=0, atol=1e-5), name
    assert any(not torch.equal(as_well[name], tensor) for name, tensor in tensors.items()), "sums in another order"
    assert metadata["identity"] == other["identity"]
    lines, same = (path.with_suffix(".jsonl").read_text().splitlines() for path in (one, two))
    assert len(lines) == len(same) == 2
    for line, also in zip(map(json.loads, lines), map(json.loads, same), strict=True):
        assert also == pytest.approx(line, rel=1e-4)


def test_a_training_goes_on_in_another_number_of_processes(shared_out, train, monkeypatch, capfd):
    recipe = shared_out("baseline")
    whole = train(recipe, "whole")
    task, terms = recipe.part.load(), recipe.part.load().terms

    def dies(self, turn, networks, batch):
        if batch == 22:  # of step 6
            raise KeyboardInterrupt
        return terms(self, turn, networks, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "ROLLING_SECONDS", 0.0)
        patch.setattr(task, "terms", dies)
        train(recipe, "killed")
    tensors, as_well = (load_tensors(path)[0] for path in (whole, train(recipe, "killed", processes=2)))
    assert capfd.readouterr().out.count("goes on from step 5") == 1
    assert all(torch.allclose(as_well[name], tensor, rtol=0, atol=1e-5) for name, tensor in tensors.items())


def test_a_pool_of_pairs_is_for_one_process(recipe_of, train, blind, monkeypatch, capfd):
    pooled = type(blind)(**{**vars(blind), "pool": 4})
    recipe = recipe_of("baseline", steps=1, optimizer={"learning_rate": 0.01, "accumulation": 2})
    train(recipe, "pooled", processes=2, blind=pooled)
    assert "in 1 of 2 processes, since its degradation has a pool" in capfd.readouterr().out


def wait_for_all(team, then):
    if team.rank == 1:
        then()
    distributed.barrier()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise ValueError("this one has had enough")


@pytest.mark.parametrize(("then", "error", "words"), [(die, TeamError, "killed"), (fail, ValueError, "had enough")])
def test_what_ends_one_process_ends_all_and_is_said(then, error, words):
    with pytest.raises(error, match=words):
        run_as_team(partial(wait_for_all, then=then), 2)


def wait_for_ever(team, folder):
    (folder / f"{team.rank}.txt").write_text(str(os.getpid()))
    if team.rank == 1:
        time.sleep(600)
    distributed.barrier()


TEAM = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_team import wait_for_ever
from headsr.training.team import run_as_team
run_as_team(partial(wait_for_ever, folder=Path(sys.argv[2])), 2)
"""


@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_one_that_began_it(tmp_path, told, code):
    words = [sys.executable, "-c", TEAM, os.path.dirname(__file__), tmp_path]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        children = [_when_there(tmp_path / f"{rank}.txt") for rank in range(2)]
        process.send_signal(told)
        assert process.wait(60) == code
    until = time.monotonic() + 60
    while any(map(_is_alive, children)):
        assert time.monotonic() < until, "a process of the team is still there"
        time.sleep(0.05)
    if told == signal.SIGTERM:
        assert not list(tmp_path.glob("headsr-team-*")), "nothing is left in the temporary folder"


def _when_there(path):
    until = time.monotonic() + 120
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(path.read_text())


def _is_alive(number):
    try:
        return open(f"/proc/{number}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
