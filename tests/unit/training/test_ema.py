import pytest
import torch
from torch import nn

from headsr.training.ema import averaged_copy, update_average


def test_the_average_equals_its_closed_form():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    averaged = averaged_copy(module)
    module.weight.data.fill_(1.0)
    for _ in range(10):
        update_average(averaged, module, decay=0.5, step=100)
    assert averaged.weight.item() == pytest.approx(1 - 0.5**10)
    assert not averaged.weight.requires_grad


def test_the_decay_warms_up():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    averaged = averaged_copy(module)
    module.weight.data.fill_(1.0)
    update_average(averaged, module, decay=0.999, step=1)
    assert averaged.weight.item() == pytest.approx(9 / 11)


def test_buffers_are_copied():
    module = nn.BatchNorm2d(2)
    averaged = averaged_copy(module)
    module.running_mean.fill_(3.0)
    update_average(averaged, module, decay=0.999, step=1)
    assert torch.equal(averaged.running_mean, module.running_mean)
