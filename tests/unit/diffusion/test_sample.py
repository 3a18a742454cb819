import subprocess
import sys

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


class TwoPoints:
    """The ideal denoiser of latents that lie around 1 and -1, with deviation 0.3: nothing about it is linear."""

    def estimate(self, condition):
        return torch.zeros(len(condition), 4, 2, 2).to(condition), torch.ones(4, 1, 1).to(condition)

    def __call__(self, noisy, times, condition, plane):
        signal, noise = SCHEDULE.signal_and_noise(times, noisy)
        total = (0.3 * signal).square() + noise.square()
        point = torch.tanh(signal * noisy / total)
        clean = point + signal * 0.09 / total * (noisy - signal * point)
        mean, deviation = SCHEDULE.posterior(noisy, *self.estimate(condition), times)
        return (clean - mean) / deviation


def ddim(unet, noise, condition, plane, *, steps, start):
    """DDIM with eta = 0 (Song 2021, equation 12) in our own words."""
    times = torch.linspace(start, -1, steps + 1).round().long()[:-1].tolist()
    latents = noise
    for now, then in zip(times, [*times[1:], None], strict=True):
        clean = predict_clean(unet, latents, now, condition, plane)
        if then is None:
            return clean
        signal, deviation = SCHEDULE.signal_and_noise(torch.tensor([now]), latents)
        residual = (latents - signal * clean) / deviation
        latents = SCHEDULE.add_noise(clean, residual, torch.tensor([then]))


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


@pytest.mark.parametrize("start", [999, 612, 300, 50])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 33, 50])
def test_the_chain_of_diffusers_goes_where_equation_12_says(steps, start):
    """In fp64, for steps that divide the chain and for steps that do not; in fp32 within its roundings."""
    noise = torch.randn(16, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    slices, planes = nothing(16)
    exact = ddim(TwoPoints(), noise, slices.double(), planes, steps=steps, start=start)
    single = sample(TwoPoints(), noise.float(), slices, planes, steps=steps, start=start)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=5e-6, rtol=0)


def test_a_whole_chain_through_all_time_steps_is_the_same_too():
    noise = torch.randn(16, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    ours = ddim(TwoPoints(), noise, *nothing(16), steps=1000, start=999)
    assert torch.allclose(sample(TwoPoints(), noise, *nothing(16), steps=1000), ours, atol=2e-5, rtol=0)


def dpm(unet, noise, condition, plane, *, steps, start):
    """DPM-Solver++ (2M) (Lu 2022, algorithm 2) in our own words."""
    times = torch.linspace(start, -1, steps + 1).round().long()[:-1].tolist()
    latents, before, rise_before = noise, None, None
    for now, then in zip(times, [*times[1:], None], strict=True):
        clean = predict_clean(unet, latents, now, condition, plane)
        if then is None:
            return clean
        (signal, deviation), (now_signal, now_deviation) = (
            SCHEDULE.signal_and_noise(torch.tensor([time]), latents) for time in (then, now)
        )
        rise = (signal / deviation).log() - (now_signal / now_deviation).log()
        ahead = clean if before is None else clean + rise / (2 * rise_before) * (clean - before)
        latents = deviation / now_deviation * latents - signal * torch.expm1(-rise) * ahead
        before, rise_before = clean, rise


@pytest.mark.parametrize("start", [999, 300])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 33])
def test_the_solver_of_diffusers_goes_where_its_algorithm_says(steps, start):
    noise = torch.randn(16, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    slices, planes = nothing(16)
    exact = dpm(TwoPoints(), noise, slices.double(), planes, steps=steps, start=start)
    single = sample(TwoPoints(), noise.float(), slices, planes, steps=steps, sampler="dpm", start=start)
    assert torch.allclose(single.double(), exact, atol=1e-5, rtol=0)


def test_looking_back_is_nearer_to_the_end_of_the_whole_chain():
    """Of latents that are normal the end is known: the same normal value of them."""
    noise = torch.randn(256, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    exact = ddim(Gaussian(), noise, *nothing(256), steps=1000, start=999)
    for steps, share in ((10, 0.95), (20, 0.85), (50, 0.65)):
        by_one, by_two = (sample(Gaussian(), noise, *nothing(256), steps=steps, sampler=one) for one in ("ddim", "dpm"))
        assert (by_two - exact).abs().mean() < share * (by_one - exact).abs().mean()


@pytest.mark.parametrize("start", [999, 300])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 33])
def test_every_sampler_asks_at_the_same_times_and_ends_at_a_clean_latent(steps, start):
    noise, times = torch.randn(4, 4, 2, 2), []
    for sampler in ("ddim", "dpm"):
        denoiser = Gaussian()
        latents = sample(denoiser, noise, *nothing(4), steps=steps, sampler=sampler, start=start)
        assert latents.isfinite().all()
        times.append(denoiser.times)
    assert times[0] == times[1] and len(times[0]) == steps
    truth = torch.randn(4, 4, 2, 2)
    reached = sample(Oracle(truth), noise, *nothing(4), steps=steps, sampler="dpm", start=start)
    assert torch.allclose(reached, truth, atol=1e-4)


def test_sampling_twice_gives_the_same_bytes():
    noise = torch.randn(16, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    first, second = (sample(TwoPoints(), noise, *nothing(16), steps=7) for _ in range(2))
    assert torch.equal(first, second)


def test_only_sampling_imports_diffusers():
    code = "import sys, headsr.diffusion.sample, headsr.inr.prior; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
