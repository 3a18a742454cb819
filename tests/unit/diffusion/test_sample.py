import pytest
import torch

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE

MEAN, DEVIATION = 1.5, 0.5


def gaussian_denoiser(noisy, times, condition, plane):
    """The ideal denoiser of latents that are normal with MEAN and DEVIATION (Wiener's estimate), as velocity."""
    signal, noise = SCHEDULE.signal_and_noise(times, noisy)
    gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + noise**2)
    clean = MEAN + gain * (noisy - signal * MEAN)
    return (signal * noisy - clean) / noise


def nothing(n):
    return torch.zeros(n, 1, 8, 8), torch.zeros(n, dtype=torch.long)


def test_one_step_is_the_wiener_estimate():
    noisy = torch.randn(2, 4, 2, 2)
    condition, plane = nothing(2)
    clean = predict_clean(gaussian_denoiser, noisy, 999, condition, plane)
    assert torch.allclose(clean, torch.full_like(clean, MEAN), atol=0.05)
    almost = predict_clean(gaussian_denoiser, noisy, torch.tensor([0, 0]), condition, plane)
    assert torch.allclose(almost, noisy, atol=0.05)


@pytest.mark.parametrize(("steps", "tolerance"), [(20, 0.12), (100, 0.03), (400, 0.02)])
def test_sampling_a_gaussian_gives_its_mean_and_deviation(steps, tolerance):
    noise = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = sample(gaussian_denoiser, noise, *nothing(64), steps=steps)
    assert latents.mean().item() == pytest.approx(MEAN, abs=tolerance)
    assert latents.std().item() == pytest.approx(DEVIATION, abs=tolerance)


def test_a_perfect_denoiser_is_reached_from_anywhere():
    truth = torch.randn(2, 4, 2, 2)

    def oracle(noisy, times, condition, plane):
        signal, noise = SCHEDULE.signal_and_noise(times, noisy)
        return (signal * noisy - truth) / noise

    times = torch.full((2,), 300)
    noisy = SCHEDULE.add_noise(truth, torch.randn_like(truth), times)
    assert torch.allclose(sample(oracle, noisy, *nothing(2), steps=4, start=300), truth, atol=1e-4)
    assert torch.allclose(sample(oracle, torch.randn(2, 4, 2, 2), *nothing(2), steps=1), truth, atol=1e-2)


def test_times_are_trailing_and_fall():
    seen = []

    def spy(noisy, times, condition, plane):
        seen.append(times.tolist())
        return torch.zeros_like(noisy)

    sample(spy, torch.randn(1, 4, 2, 2), *nothing(1), steps=4)
    assert [times[0] for times in seen] == [999, 749, 499, 249]
