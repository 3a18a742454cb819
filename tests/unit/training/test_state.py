import pytest
import torch

from headsr.networks.blocks import PixelNorm
from headsr.networks.build import build_network
from headsr.recipes.models import Optimizer
from headsr.training import state as states
from headsr.weights import StateError

OPTIMIZER = Optimizer(learning_rate=0.01, weight_decay=0.05)


def trained(seed, steps=3):
    torch.manual_seed(seed)
    block = {"architecture": "residual2d", "channels": 4, "blocks": 1}
    state = states.new_state({name: build_network(block) for name in ("network", "discriminator")}, OPTIMIZER)
    for step in range(1, steps + 1):
        for learner in state.learners.values():
            step_of(learner)
        state.step = step
    state.history, state.sums, state.count = [{"step": 0, "val_psnr": 0.1 + 0.2}], {"l1": 1 / 3}, 2
    return state


def step_of(learner):
    learner.module(torch.rand(1, 1, 6, 6)).square().mean().backward()
    learner.optimizer.step()
    learner.optimizer.zero_grad()


def parameters_of(state):
    return [p for learner in state.learners.values() for p in learner.module.parameters()]


def test_two_networks_come_back_whole_and_save_to_the_same_bytes(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": {"seed": 1}, "stage": 1})
    states.load_state(tmp_path / "a", second, identity={"stage": 1, "recipe": {"seed": 1}})
    assert (second.step, second.history, second.sums, second.count) == (3, first.history, first.sums, 2)
    states.save_state(tmp_path / "b", second, identity={"recipe": {"seed": 1}, "stage": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    names = states.load_tensors(tmp_path / "a")[0]
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in names} == {
        f"{network}.{part}" for network in ("network", "discriminator") for part in ("module", "average", "optimizer")
    }


def test_a_restored_state_steps_as_the_original(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={})
    states.load_state(tmp_path / "a", second, identity={})
    for state in (first, second):
        torch.manual_seed(3)
        for learner in state.learners.values():
            step_of(learner)
    assert all(map(torch.equal, parameters_of(first), parameters_of(second)))


def test_the_state_of_another_training_is_refused_and_changes_nothing(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": 1, "stage": 1})
    before = [p.clone() for p in parameters_of(second)]
    with pytest.raises(StateError, match=r"a: is the state of another training \(different: recipe\)"):
        states.load_state(tmp_path / "a", second, identity={"recipe": 2, "stage": 1})
    assert all(map(torch.equal, before, parameters_of(second)))


def test_what_has_several_dimensions_decays_kernels_of_blocks_too_and_gains_do_not():
    layers = torch.nn.Conv3d(1, 2, 3), PixelNorm(2), torch.nn.Linear(2, 2), torch.nn.GroupNorm(1, 2)
    module = torch.nn.Sequential(*layers)
    learner = states.new_state({"network": module}, OPTIMIZER).learners["network"]
    decay = {id(p): group["weight_decay"] for group in learner.optimizer.param_groups for p in group["params"]}
    assert {decay[id(p)] for p in module.parameters() if p.ndim > 1} == {0.05}
    assert {decay[id(p)] for p in module.parameters() if p.ndim == 1} == {0.0}
    assert decay[id(module[1].gain)] == 0.0
    assert len(decay) == 7


def test_the_average_alone_can_be_read(tmp_path):
    state = trained(1)
    states.save_state(tmp_path / "a", state, identity={})
    other = build_network({"architecture": "residual2d", "channels": 4, "blocks": 1})
    states.load_average(tmp_path / "a", "discriminator", other)
    averaged = state.learners["discriminator"].averaged
    assert all(map(torch.equal, other.parameters(), averaged.parameters()))
