"""Losses on a discriminator's verdicts (logits): the first argument shall be judged real, the second made.

A discriminator is trained on (real, made); its generator on (made, real), in the turn after.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def vanilla_loss(real: Tensor, made: Tensor) -> Tensor:
    """Cross-entropy of every verdict by itself (Goodfellow 2014); for the generator in its non-saturating form.

    2 log 2 where the discriminator knows nothing. What was really real gives a generator a constant and no gradient.
    """
    return F.softplus(-real.float()).mean() + F.softplus(made.float()).mean()


def relativistic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Cross-entropy of verdicts beside the other side's mean: relativistic average (Jolicoeur-Martineau 2018).

    2 log 2 where the discriminator knows nothing. Both sides give a generator a gradient (Wang 2018, ESRGAN, 3.2).
    """
    real, made = real.float(), made.float()
    return F.softplus(made.mean() - real).mean() + F.softplus(made - real.mean()).mean()
