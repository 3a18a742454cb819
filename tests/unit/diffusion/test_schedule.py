import pytest
import torch

from headsr.diffusion.schedule import SCHEDULE, Schedule


def test_the_chain_is_the_one_of_the_tables():
    """abar at the middle and the end of scaled_linear .0015 - .0195 (reference/methods_2d, 4.1)."""
    assert SCHEDULE.alphas_bar[500].item() == pytest.approx(0.115, abs=1e-3)
    assert SCHEDULE.alphas_bar[-1].item() == pytest.approx(1.4e-4, rel=0.05)
    assert (SCHEDULE.alphas_bar.diff() < 0).all()


def test_noise_has_the_right_variance():
    latents, noise = torch.zeros(1, 4, 64, 64), torch.randn(1, 4, 64, 64)
    noisy = SCHEDULE.add_noise(latents, noise, torch.tensor([500]))
    assert noisy.var().item() == pytest.approx(1 - 0.115, abs=0.03)


@pytest.mark.parametrize("time", [0, 300, 999])
def test_around_zero_with_deviation_one_the_posterior_is_that_of_v_prediction(time):
    noisy, times = torch.randn(3, 4, 5, 2), torch.full((3,), time)
    signal, noise = SCHEDULE.signal_and_noise(times, noisy)
    mean, deviation = SCHEDULE.posterior(noisy, torch.zeros(()), torch.ones(4, 1, 1), times)
    assert torch.allclose(mean, signal * noisy, atol=1e-6)
    assert torch.allclose(deviation, noise.expand_as(deviation), atol=1e-6)


def test_the_posterior_of_a_gaussian_is_measured():
    latents = 1.5 + 0.5 * torch.randn(1, 1, 300, 300, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([200])
    noisy = SCHEDULE.add_noise(latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(2)), times)
    mean, deviation = SCHEDULE.posterior(noisy, torch.tensor(1.5), torch.full((1, 1, 1), 0.5), times)
    error = latents - mean
    assert error.mean().item() == pytest.approx(0, abs=0.01)
    assert error.std().item() == pytest.approx(deviation.item(), rel=0.01)
    assert (error * (noisy - noisy.mean())).mean().item() == pytest.approx(0, abs=0.01), "nothing linear is left"


def test_every_sample_has_its_own_time():
    latents = torch.ones(2, 1, 1, 1)
    noisy = SCHEDULE.add_noise(latents, torch.zeros_like(latents), torch.tensor([0, 999]))
    assert noisy.flatten().tolist() == pytest.approx([(1 - 0.0015) ** 0.5, SCHEDULE.alphas_bar[-1].item() ** 0.5])


def test_fractions_of_the_chain():
    assert [Schedule(steps=11).timestep_at(f) for f in (-1.0, 0.0, 0.26, 1.0, 2.0)] == [0, 0, 3, 10, 10]


def test_it_is_the_chain_of_diffusers():
    from diffusers import DDIMScheduler

    reference = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    assert torch.allclose(SCHEDULE.alphas_bar.float(), reference.alphas_cumprod, rtol=1e-4)
