"""The degradation of training slices on a graphics card: all but the noise, which each device draws by itself."""

from dataclasses import replace

import pytest
import torch

from headsr.degrade.pipeline import BlindDegradation
from headsr.recipes import Blind, BlindStage

pytestmark = pytest.mark.cuda
STAGE = BlindStage(
    blur_probability=0.8,
    blur_sigma_mm=(0.2, 1.5),
    thick_factor=(2.0, 6.0),
    thick_probability=0.8,
    noise_probability=0.0,
    noise_sigma=(0.002, 0.05),
    correlated_noise_probability=0.5,
    ringing_probability=0.5,
    ringing_cutoff=(0.5, 0.95),
    compression_probability=0.0,
    compression_quality=(50.0, 95.0),
)
ROWS, COLUMNS = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 28), indexing="ij")
SLICES = ((ROWS**2 + COLUMNS**2 < 0.6) * (0.6 + 0.3 * torch.sin(9 * ROWS + 6 * COLUMNS))).expand(16, 1, 40, 28)
PIXELS = torch.tensor([[1.0, 0.8]]).repeat(16, 1)


def degraded(stage, device):
    blind = Blind(first=stage, second=replace(stage, thick_probability=0.0), second_probability=0.5)
    return BlindDegradation(blind, device=device)(SLICES, PIXELS, list(range(16)))


def test_without_noise_it_is_the_same():
    here, there = degraded(STAGE, "cpu"), degraded(STAGE, "cuda")
    assert there.metadata == here.metadata
    assert float((here.images - SLICES).abs().max()) > 0.05
    assert float((there.images.cpu() - here.images).abs().max()) < 1e-4


def test_with_noise_and_compression_it_is_repeated_and_finite():
    noisy = replace(STAGE, noise_probability=1.0, compression_probability=0.5)
    one, again = degraded(noisy, "cuda"), degraded(noisy, "cuda")
    assert torch.isfinite(one.images).all()
    assert float((one.images - again.images).abs().max()) < 1e-5
