"""Blocks that keep their inputs alone: the same numbers in less memory."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from headsr.networks.blocks import Checkpointed, checkpoint_blocks
from headsr.networks.build import build_network, check_network
from headsr.networks.condition import Condition
from headsr.networks.unrolled import Correction
from headsr.parts import NETWORKS

LATENT = {"architecture": "unet2d", "channels": [8, 12], "blocks": 2, "attention": [False, True], "head_width": 4}
BLOCKS = [
    {"architecture": "residual2d", "channels": 8, "blocks": 4},
    {"architecture": "slice_unet", "channels": [8, 12], "blocks": 3},
    {"architecture": "rrdb", "channels": 8, "blocks": 3, "growth": 4},
    {"architecture": "swinir", "channels": 12, "depths": [2, 2], "heads": 3, "window": 4},
    {**LATENT, "feedforward": "geglu"},
    {**LATENT, "feedforward": "metakan"},
    {**LATENT, "feedforward": "metafunkan"},
    {"architecture": "unrolled"},
]


class Corrected(Correction):
    """The convolutional part of the operator-aware network, by the features that it makes."""

    def forward(self, inputs, traits):
        features, change = super().forward(inputs, traits)
        return features + change


def network_of(block):
    return Corrected([4, 6], [2, 2, 2]) if block["architecture"] == "unrolled" else build_network(block)


def inputs_of(block):
    if block["architecture"] == "unrolled":
        return torch.rand(1, 12, 12, 8, 8), torch.rand(1, 13)
    if block["architecture"] != "unet2d":
        return (torch.rand(2, 1, 32, 40),)
    lengths = torch.tensor([[0.8, 1.2], [1.0, 0.9]]), torch.tensor([4.0, 2.0])
    condition = Condition.of_one_scan(torch.rand(2, 1, 32, 48), torch.tensor([0, 2]), *lengths)
    return torch.rand(2, 4, 8, 12), torch.tensor([3, 400]), condition


@pytest.fixture(params=BLOCKS, ids=lambda block: block.get("feedforward", block["architecture"]))
def plain_and_checkpointed(request):
    """A network whose last layers are not zero, as after some steps; the same with checkpointing; inputs."""
    torch.manual_seed(3)
    network = network_of(request.param).train()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    other = copy.deepcopy(network)
    checkpoint_blocks(other)
    return network, other, inputs_of(request.param)


def learn(network, inputs, precision=None):
    """The loss, the gradients, and how many bytes lay ready for the backward pass beside the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None)
    with cast, saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(*inputs).float().square().mean()
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in network.parameters()], sum(kept.values())


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_gradients_are_the_same_to_the_bit_and_less_is_kept(plain_and_checkpointed, precision):
    network, other, inputs = plain_and_checkpointed
    (loss, gradients, bytes_kept), (same, as_well, fewer) = (learn(one, inputs, precision) for one in (network, other))
    assert torch.equal(loss, same)
    assert all(gradient.any() for gradient in gradients)
    assert all(map(torch.equal, gradients, as_well))
    assert fewer < 0.7 * bytes_kept


def test_it_changes_no_name_and_nothing_but_training(plain_and_checkpointed, monkeypatch):
    network, other, inputs = plain_and_checkpointed
    assert list(network.state_dict()) == list(other.state_dict())
    monkeypatch.setattr("headsr.networks.blocks.checkpoint", pytest.fail)
    with torch.no_grad():
        other(*inputs)
    other.eval()(*inputs)


def test_a_network_without_such_blocks_is_refused():
    with pytest.raises(ValueError, match="checkpointing: Linear has no blocks to compute again"):
        checkpoint_blocks(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("architecture", [name for name, part in NETWORKS.items() if "discriminator" in part.kinds])
def test_no_discriminator_is_checkpointed(architecture):
    network = check_network({"architecture": architecture, "channels": 4})
    assert not any(isinstance(module, Checkpointed) for module in network.modules())
