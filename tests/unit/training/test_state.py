import pytest
import torch

from headsr.networks.build import build_network
from headsr.training import state as states
from headsr.weights import StateError


def trained(seed, steps=3):
    torch.manual_seed(seed)
    state = states.new_state(build_network("baseline", {"architecture": "residual2d", "channels": 4, "blocks": 1}))
    for step in range(1, steps + 1):
        state.module(torch.rand(1, 1, 6, 6)).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step = step
    state.history, state.sums, state.count = [{"step": 0, "val_psnr": 0.1 + 0.2}], {"l1": 1 / 3}, 2
    return state


def test_a_state_comes_back_whole_and_saves_to_the_same_bytes(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": {"seed": 1}, "stage": 1})
    states.load_state(tmp_path / "a", second, identity={"stage": 1, "recipe": {"seed": 1}})
    assert (second.step, second.history, second.sums, second.count) == (3, first.history, first.sums, 2)
    states.save_state(tmp_path / "b", second, identity={"recipe": {"seed": 1}, "stage": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_restored_state_steps_as_the_original(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={})
    states.load_state(tmp_path / "a", second, identity={})
    for state in (first, second):
        state.module(torch.ones(1, 1, 6, 6)).square().mean().backward()
        state.optimizer.step()
    assert all(map(torch.equal, first.module.parameters(), second.module.parameters()))


def test_the_state_of_another_training_is_refused_and_changes_nothing(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": 1, "stage": 1})
    before = [p.clone() for p in second.module.parameters()]
    with pytest.raises(StateError, match=r"a: is the state of another training \(different: recipe\)"):
        states.load_state(tmp_path / "a", second, identity={"recipe": 2, "stage": 1})
    assert all(map(torch.equal, before, second.module.parameters()))


def test_a_fingerprint_follows_content_not_order(recipe_of):
    assert states.fingerprint_of({"a": 1, "b": (2, 3)}) == states.fingerprint_of({"b": [2, 3], "a": 1})
    assert states.fingerprint_of({"a": 1}) != states.fingerprint_of({"a": 2})


def test_the_length_of_a_training_is_not_part_of_what_segments_share(recipe_of):
    assert states.without_length(recipe_of("ldm", steps=2)) == states.without_length(recipe_of("ldm", segments=9))
    assert states.without_length(recipe_of("ldm")) != states.without_length(recipe_of("ldm", learning_rate=0.5))
