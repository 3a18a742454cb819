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


@pytest.mark.parametrize("time", [0, 1, 500, 999])
def test_velocity_gives_back_the_clean_latent_and_the_noise(time):
    latents, noise = torch.randn(3, 4, 5, 2), torch.randn(3, 4, 5, 2)
    times = torch.full((3,), time)
    noisy, velocity = SCHEDULE.add_noise(latents, noise, times), SCHEDULE.velocity(latents, noise, times)
    assert torch.allclose(SCHEDULE.clean(noisy, velocity, times), latents, atol=1e-5)
    assert torch.allclose(SCHEDULE.noise(noisy, velocity, times), noise, atol=1e-5)


def test_every_sample_has_its_own_time():
    latents = torch.ones(2, 1, 1, 1)
    noisy = SCHEDULE.add_noise(latents, torch.zeros_like(latents), torch.tensor([0, 999]))
    assert noisy.flatten().tolist() == pytest.approx([(1 - 0.0015) ** 0.5, SCHEDULE.alphas_bar[-1].item() ** 0.5])


def test_fractions_of_the_chain():
    assert [Schedule(steps=11).timestep_at(f) for f in (-1.0, 0.0, 0.26, 1.0, 2.0)] == [0, 0, 3, 10, 10]
