"""How far latents are from the standard normal."""

from __future__ import annotations

from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence from the standard normal, averaged over every latent element (mean form, not CompVis's sum).

    The weight 1e-6 of the summed form corresponds to 1e-6 * C / f^2 here: 2.5e-7 for 4 channels and f = 4.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
