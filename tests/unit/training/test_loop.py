import dataclasses

import pytest
import torch
from torch import nn

from headsr.devices import generator_of
from headsr.networks.blocks import Checkpointed, checkpoint_blocks
from headsr.training import loop
from headsr.training.state import save_state
from headsr.weights import StateError


class Line:
    """Fits y = 2 x; told to, it dies at a step."""

    turns = ("network",)

    def __init__(self, dies_at=None, worth=1.0):
        self.dies_at, self.worth, self.steps = dies_at, worth, []

    def terms(self, turn, networks, step):
        if step == self.dies_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        x = torch.randn(4, 1, generator=generator_of(7, step))
        return {"l1": self.worth * (networks["network"](x) - 2 * x).abs().mean()}

    def validate(self, module):
        return {"val_error": abs(module.weight.item() - 2), "val_psnr": float("inf")}


@pytest.fixture
def plan(tmp_path, recipe_of):
    return loop.Plan(
        label="line",
        recipe=recipe_of("baseline", losses={"l1": 1.0}),
        identity={"recipe": "a"},
        continues={"recipe": "a"},
        first=0,
        last=120,
        rate=lambda step: 0.05 * min(1, step / 50),
        scratch=tmp_path / "scratch",
    )


def run(plan, task=None):
    torch.manual_seed(1)
    return loop.train(task or Line(), {"network": nn.Linear(1, 1)}, plan)


def bytes_of(tmp_path, state, name="state"):
    save_state(tmp_path / name, state, identity={"recipe": "a"})
    return (tmp_path / name).read_bytes()


def test_it_learns_and_keeps_its_history(plan):
    state = run(plan)
    assert [line["step"] for line in state.history] == [*range(0, 121, 10)]
    assert [line["step"] for line in state.history if "val_error" in line] == [0, 100]
    assert state.history[-1]["train_l1"] < 0.2 * state.history[1]["train_l1"]
    assert state.learners["network"].averaged.weight.item() == pytest.approx(2, abs=0.2)
    assert "val_psnr" not in state.history[0], "JSON knows no infinity"


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(plan, tmp_path, monkeypatch):
    whole = bytes_of(tmp_path, run(plan))
    monkeypatch.setattr(loop, "ROLLING_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(plan, Line(dies_at=57))
    task = Line()
    assert bytes_of(tmp_path, run(plan, task)) == whole
    assert task.steps[0] == 57
    loop.forget_rolling(plan)
    assert not plan.rolling.exists()


@pytest.mark.parametrize("change", [{"identity": {"recipe": "b"}}, {"last": 110}])
def test_the_rolling_state_of_another_training_is_not_used(plan, monkeypatch, capsys, change):
    monkeypatch.setattr(loop, "ROLLING_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(plan, Line(dies_at=30))
    task = Line()
    run(dataclasses.replace(plan, **change), task)
    assert task.steps[0] == 1
    assert "begins anew" in capsys.readouterr().out


def test_a_damaged_rolling_state_is_not_used(plan):
    plan.scratch.mkdir()
    plan.rolling.write_bytes(b"half a st")
    task = Line()
    run(plan, task)
    assert task.steps[0] == 1


@pytest.mark.parametrize("cut", [50, 53])
def test_two_stretches_are_one(plan, tmp_path, cut):
    whole = bytes_of(tmp_path, run(plan))
    bytes_of(tmp_path, run(dataclasses.replace(plan, last=cut)), "first")
    second = dataclasses.replace(plan, first=cut, previous=tmp_path / "first")
    assert bytes_of(tmp_path, run(second)) == whole


def test_a_previous_state_of_another_step_is_refused(plan, tmp_path):
    bytes_of(tmp_path, run(dataclasses.replace(plan, last=50)), "first")
    with pytest.raises(StateError, match="first: is the state after step 50, not 60"):
        run(dataclasses.replace(plan, first=60, previous=tmp_path / "first"))


def test_a_loss_that_is_no_number_stops_the_training(plan):
    with pytest.raises(loop.TrainingError, match=r"'l1' is not a number any more, after step 0 and by step 10"):
        run(plan, Line(worth=float("nan")))


class Pair(Line):
    """Fits y = 2 x by two losses, of which one pulls twice as much per unit; a network with blocks does it."""

    def terms(self, turn, networks, step):
        error = super().terms(turn, networks, step)["l1"]
        return {"l1": error, "gradient": 2 * error}


@pytest.mark.parametrize("checkpointed", [False, True])
def test_shares_of_the_gradient_are_logged_at_validated_steps_and_change_nothing(
    plan, recipe_of, tmp_path, monkeypatch, checkpointed
):
    recipe = recipe_of("baseline", losses={"l1": 1.0, "gradient": 0.1, "wavelet": 0.0})
    plan = dataclasses.replace(plan, recipe=recipe)

    def tensors(scratch):
        torch.manual_seed(1)
        network = Dropped()
        if checkpointed:
            checkpoint_blocks(network)
        state = loop.train(Pair(), {"network": network}, dataclasses.replace(plan, scratch=tmp_path / scratch))
        return state.history, list(state.learners["network"].module.state_dict().values())

    history, values = tensors("with")
    shares = {line["step"]: {key: line[key] for key in line if key.startswith("share_")} for line in history}
    assert {step for step, found in shares.items() if found} == {100}
    assert shares[100] == pytest.approx({"share_l1": 1 / 1.2, "share_gradient": 0.2 / 1.2})
    monkeypatch.setattr(loop, "gradient_shares", lambda *_: {})
    without, same = tensors("without")
    assert all(map(torch.equal, values, same))
    assert [{key: line[key] for key in line if not key.startswith("share_")} for line in history] == without


class Dropped(Checkpointed):
    """One weight, and noise of the network's own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):
        return nn.functional.dropout(x @ self.weight + 0.0, 0.1)


def test_history_thins_out_and_validations_are_logged():
    logged = [step for step in range(1, 100_001) if loop.is_logged(step)]
    assert logged[:2] == [10, 20]
    assert len(logged) == 999 + 900 + 1
    validated = [step for step in range(1, 100_001) if loop.is_validated(step)]
    assert set(validated) <= set(logged)
    assert validated[:2] == [100, 200]
