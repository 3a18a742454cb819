"""How a denoiser is used: the noise schedule and the way from noise to a clean latent."""
