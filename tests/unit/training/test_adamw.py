import pytest
import torch
from torch import nn

from headsr.training.adamw import AdamW


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 2))


def test_it_steps_as_torch_does():
    ours, theirs = network(), network()
    weights = [p for p in theirs.parameters() if p.ndim in (2, 4)]
    rest = [p for p in theirs.parameters() if p.ndim not in (2, 4)]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    reference, optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99)), AdamW(ours, weight_decay=0.1)
    for step in range(1, 6):
        images = torch.randn(2, 1, 4, 4)
        ours(images).square().sum().backward()
        theirs(images).square().sum().backward()
        optimizer.step(step, rate=0.01)
        reference.step()
        reference.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_gradients_are_forgotten_and_none_at_all_is_an_error():
    module = network()
    optimizer = AdamW(module)
    module(torch.randn(1, 1, 4, 4)).sum().backward()
    optimizer.step(1, rate=0.01)
    assert all(p.grad is None for p in module.parameters())
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        optimizer.step(2, rate=0.01)
