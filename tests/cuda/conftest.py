"""What is the same on a graphics card, for machines that have one (docs/gpu.md)."""

import sys
from pathlib import Path

import pytest
import torch
from stored_balls import store_balls

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "fields"))  # the fields of random weights


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="this machine has no CUDA device"))


@pytest.fixture(scope="session")
def balls(tmp_path_factory):
    """The path of an index of one small anatomy."""
    return store_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions and products in fp32 proper: TF32 keeps ten bits of what they multiply."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
