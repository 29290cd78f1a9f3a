"""Training of HiFi-GAN: discriminators, losses, data, trainer, checkpoints in the published layout."""
