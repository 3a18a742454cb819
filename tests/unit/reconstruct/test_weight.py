"""Known answers of the estimated prediction error: shrinking white noise, where the truth is a formula."""

import numpy as np
import pytest
import torch

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.reconstruct.weight import best_weight, prediction_error
from headsr.volumes import Grid

GRID, NOISE = Grid((20, 21, 22), np.eye(4)), (0.1, 0.3)
TRUTH = 0.2 * torch.rand(GRID.shape, generator=torch.Generator().manual_seed(7))
ALL = torch.ones(GRID.shape, dtype=torch.bool)
HEAD = torch.zeros(GRID.shape, dtype=torch.bool)
HEAD[4:16, 3:18, 5:20] = True


def noisy_study(noise=NOISE, head=ALL, air: float = 0.0) -> Study:
    """Scans on the head's own grid, where A is one; ``air`` is added outside the head."""
    generator, operator = torch.Generator().manual_seed(1), Acquisition(GRID, GRID, axis=2)
    data = [TRUTH + sigma * torch.randn(GRID.shape, generator=generator) + air * ~HEAD for sigma in noise]
    scans = (Measurement(str(i), operator, y, s, head) for i, (y, s) in enumerate(zip(data, noise, strict=True)))
    return Study(GRID, tuple(scans), 1.0, 0.0, "some", "KEY")


def shrunk(study: Study, weight: float) -> np.ndarray:
    """argmin (x - y)^2 + weight x^2 of the first scan."""
    return (study.scans[0].data / (1 + weight)).numpy()


def signs(study: Study) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [(2.0 * torch.randint(0, 2, s.data.shape, generator=generator) - 1) * s.head for s in study.scans]


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("head", [ALL, HEAD], ids=["all", "head"])
def test_the_error_of_shrinking_one_scan_is_its_formula(weight, head):
    study = noisy_study(NOISE[:1], head)
    squared = float((study.scans[0].data[head].double() ** 2).mean()) / NOISE[0] ** 2
    expected = (weight / (1 + weight)) ** 2 * squared - 1 + 2 / (1 + weight)
    assert prediction_error(shrunk, study, weight, signs(study)) == pytest.approx(expected, abs=1e-4)


def test_it_estimates_the_true_error_of_scans_of_unequal_noise():
    study = noisy_study()
    for weight in (0.0, 1.0, 5.0):
        miss = torch.as_tensor(shrunk(study, weight)) - TRUTH
        true = np.mean([float(miss.square().mean()) / sigma**2 for sigma in NOISE])
        assert prediction_error(shrunk, study, weight, signs(study)) == pytest.approx(true, abs=0.05)


def test_the_weight_is_near_the_oracle_s_whatever_the_first_guess():
    study = noisy_study(NOISE[:1])
    oracle = NOISE[0] ** 2 / float(TRUTH.square().mean())
    for first in (oracle * 30, oracle / 30):
        choice = best_weight(shrunk, study, first=first, limits=(1e-6, 1e6))
        assert choice.weight == pytest.approx(oracle, rel=0.15)
        weights, errors = zip(*choice.curve, strict=True)
        assert weights == tuple(sorted(weights)) and min(errors) < errors[0] and min(errors) < errors[-1]


def test_no_weight_beyond_the_limits_is_tried():
    for limits in ((1e-6, 1e-3), (1e2, 1e4)):
        choice = best_weight(shrunk, noisy_study(), first=1.0, limits=limits)
        assert all(limits[0] <= weight <= limits[1] for weight, _ in choice.curve)
        assert choice.weight == limits[1 if limits[1] < 1 else 0]


def test_air_changes_nothing():
    choices = [
        best_weight(shrunk, noisy_study(head=HEAD, air=air), first=1.0, limits=(1e-3, 1e3)) for air in (0.0, 9.0)
    ]
    assert choices[0] == choices[1]
