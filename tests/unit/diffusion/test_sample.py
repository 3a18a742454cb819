import pytest
import torch

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE

MEAN, DEVIATION = 1.5, 0.5


class Gaussian:
    """The ideal denoiser of latents that are normal with MEAN and DEVIATION: its linear estimate is all there is."""

    def __init__(self):
        self.times = []

    def estimate(self, condition):
        return torch.full((len(condition), 4, 2, 2), MEAN), torch.full((4, 1, 1), DEVIATION)

    def __call__(self, noisy, times, condition, plane):
        self.times.append(times[0].item())
        return torch.zeros_like(noisy)


class Oracle:
    """Knows the clean latents, with no estimate to begin with."""

    def __init__(self, truth):
        self.truth = truth

    def estimate(self, condition):
        return torch.zeros_like(self.truth), torch.ones(4, 1, 1)

    def __call__(self, noisy, times, condition, plane):
        mean, deviation = SCHEDULE.posterior(noisy, *self.estimate(condition), times)
        return (self.truth - mean) / deviation


def nothing(n):
    return torch.zeros(n, 1, 8, 8), torch.zeros(n, dtype=torch.long)


def test_one_step_is_the_wiener_estimate():
    noisy = torch.randn(2, 4, 2, 2)
    clean = predict_clean(Gaussian(), noisy, 999, *nothing(2))
    assert torch.allclose(clean, torch.full_like(clean, MEAN), atol=0.05)
    almost = predict_clean(Gaussian(), noisy, torch.tensor([0, 0]), *nothing(2))
    assert torch.allclose(almost, noisy, atol=0.05)


@pytest.mark.parametrize(("steps", "tolerance"), [(20, 0.12), (100, 0.03), (400, 0.02)])
def test_sampling_a_gaussian_gives_its_mean_and_deviation(steps, tolerance):
    noise = torch.randn(1024, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = sample(Gaussian(), noise, *nothing(1024), steps=steps)
    assert latents.mean().item() == pytest.approx(MEAN, abs=tolerance)
    assert latents.std().item() == pytest.approx(DEVIATION, abs=tolerance)


def test_the_truth_is_reached_from_anywhere_by_who_knows_it():
    truth = torch.randn(2, 4, 2, 2)
    noisy = SCHEDULE.add_noise(truth, torch.randn_like(truth), torch.full((2,), 300))
    assert torch.allclose(sample(Oracle(truth), noisy, *nothing(2), steps=4, start=300), truth, atol=1e-4)
    assert torch.allclose(sample(Oracle(truth), torch.randn(2, 4, 2, 2), *nothing(2), steps=1), truth, atol=1e-4)


def test_times_are_trailing_and_fall():
    denoiser = Gaussian()
    sample(denoiser, torch.randn(1, 4, 2, 2), *nothing(1), steps=4)
    assert denoiser.times == [999, 749, 499, 249]
