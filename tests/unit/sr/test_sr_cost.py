"""What is foretold of time: the halos of tiles are computed, too."""

import math

import numpy as np
import pytest
import torch

from headsr.models.shipped import load_shipped
from headsr.networks.unrolled import Refined
from headsr.reconstruct.unrolled import fitting, tiles_of
from headsr.sr import cost
from headsr.volumes import Grid

HEAD = Grid((256, 256, 160), np.eye(4))
VOXELS = math.prod(HEAD.shape)


@pytest.fixture
def model():
    return load_shipped("unrolled", torch.device("cpu"))


def test_halos_of_tiles_count_as_what_the_network_corrects(model, monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(ticks)))  # a pilot takes one second
    monkeypatch.setattr(cost, "refine", lambda *_, **__: Refined(torch.zeros(1), torch.zeros(1)))
    pilot = cost._PILOT**3
    at_once = cost.seconds_of(HEAD, model, 50_000_000_000)
    assert at_once == pytest.approx(VOXELS / pilot / cost.NETWORK_SHARE)
    memory = 3_000_000_000
    tiles = tiles_of(HEAD, model.module, fitting(HEAD, model, memory))
    assert len(tiles) > 1 and sum(tiles) > 1.2 * VOXELS
    assert cost.seconds_of(HEAD, model, memory) == pytest.approx(at_once + (sum(tiles) - VOXELS) / pilot)
