"""A discriminator that judges patches: MONAI's, without norms that mix the samples of a batch."""

from __future__ import annotations

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Verdicts (N, 1, h, w) on overlapping patches of images (N, 1, H, W), as logits; of blocks with ``axes`` 3.

    The 70 x 70 discriminator of Isola (2017) has ``layers`` 3. Instance norm in place of its batch norm: a verdict is
    that of one image, whatever else is in the batch, and nothing has to be averaged over batches.
    """

    def __init__(self, *, channels: int, layers: int = 3, axes: int = 2) -> None:
        super().__init__()
        # Imported here, by the few jobs that train against it: it takes seconds.
        from monai.networks.nets import PatchDiscriminator as Patches

        self.patches = Patches(axes, channels, in_channels=1, num_layers_d=layers, norm="INSTANCE")

    def forward(self, images: Tensor) -> Tensor:
        """Positive where a patch looks real."""
        return self.patches(images)[-1]
